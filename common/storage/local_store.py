"""The local disk, where a file appears whole or not at all."""

import contextlib
import glob
import os
import re
import shutil
import uuid
from collections.abc import Iterator

from common.storage.paths import is_local, local_path

_PARTIAL = re.compile(r"\.partial-[0-9a-f]{32}$")  # names of `_replacing`


class LocalStore:
    """The local disk and mounted file systems."""

    def exists(self, uri: str) -> bool:
        return os.path.exists(local_path(uri))

    def size(self, uri: str) -> int:
        return os.path.getsize(local_path(uri))

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        with open(local_path(uri), "rb") as file:
            file.seek(begin)
            return file.read(-1 if end is None else end - begin)

    def write(self, uri: str, content: bytes) -> None:
        with _replacing(local_path(uri)) as partial, open(partial, "wb") as file:
            file.write(content)

    def create(self, uri: str, content: bytes) -> None:
        path = local_path(uri)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = f"{path}.partial-{uuid.uuid4().hex}"
        try:
            with open(partial, "xb") as file:
                file.write(content)
            with contextlib.suppress(FileExistsError):
                _link(partial, path)
        except OSError as error:
            error.filename = error.filename or path  # writing names no file
            raise
        finally:
            with contextlib.suppress(OSError):
                os.remove(partial)

    def get(self, uri: str, path: str) -> None:
        shutil.copyfile(local_path(uri), path)

    def put(self, path: str, uri: str) -> None:
        with _replacing(local_path(uri)) as partial:
            shutil.copyfile(path, partial)

    def list_files(self, uri: str) -> list[str]:
        """Lists all files below a directory, except unfinished ones."""
        return [name for name in _names_below(uri) if not _PARTIAL.search(name)]

    def glob(self, pattern: str) -> list[str]:
        pattern = os.path.expanduser(pattern.removeprefix("file://"))
        # a file may have `[` in its name
        found = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
        return [path for path in found if os.path.isfile(path) and not _PARTIAL.search(path)]

    def remove(self, uri: str) -> None:
        path = local_path(uri)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)


def _link(partial: str, path: str) -> None:
    """Gives the file `partial` the name `path`. Raises FileExistsError if `path` exists."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with open(path, "xb"):
            pass
        try:
            os.replace(partial, path)
        except OSError:
            os.remove(path)
            raise


def remove_partial(uri: str) -> None:
    """Removes unfinished files below a local directory; ignores other stores."""
    if is_local(uri):
        for name in filter(_PARTIAL.search, _names_below(uri)):
            with contextlib.suppress(FileNotFoundError):  # its writer is alive and has just finished
                os.remove(os.path.join(local_path(uri), name))


def _names_below(uri: str) -> list[str]:
    root = local_path(uri)
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return [os.path.relpath(path, root) for path in found]


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
    """Yields a temporary path. A file written there replaces `path` on success, and is removed after an error."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.partial-{uuid.uuid4().hex}"  # unique: workers on several machines may have the same process id
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:  # most often a full disk
        with contextlib.suppress(OSError):
            os.remove(partial)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = path  # writing names no file
        raise
