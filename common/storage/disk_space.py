"""Translates errors about full disks, including those of libraries, into errors that name the disk and its space."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_CODES = (errno.ENOSPC, errno.EDQUOT)
_TEXTS = tuple(os.strerror(code) for code in _CODES)
"""Messages for `_CODES`. Errors of TensorFlow, Arrow and Beam contain the message, but not the code."""


class DiskFullError(OSError):
    """A disk is full; the message names the disk."""


@contextmanager
def explain_full_disk(*paths: str | None) -> Iterator[None]:
    """Translates an error about a full disk into one that names the disk.

    The caller removes unfinished files after the context, not in it: freed space would hide which disk was full.

    Args:
      paths: local paths written to in the context, in addition to temporary files. URIs and None are ignored.

    Raises:
      DiskFullError: a disk is full; the message names the disk and its free space.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError) or not _is_full(error):
            raise
        local = [path.removeprefix("file://") for path in paths if path]
        raise DiskFullError(_describe(error, [path for path in local if "://" not in path])) from error


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is about a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in _CODES or any(text in str(error) for text in _TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _describe(error: Exception, paths: list[str]) -> str:
    words = (str(error).strip().splitlines() or [type(error).__name__])[-1].partition(" [while running ")[0]
    temporary = tempfile.gettempdir()
    # the file that the error names, else the fullest disk
    named = [path for path in re.findall(r"/[^\s;:'\"]+", words) if os.path.isdir(os.path.dirname(path))]
    usage = {path: shutil.disk_usage(_existing(path)) for path in named[:1] or [*paths, temporary]}
    path = min(usage, key=lambda path: usage[path].free)
    free, total = (f"{size / 2**20:,.1f} MiB" for size in (usage[path].free, usage[path].total))
    is_temporary = path.startswith(temporary) and not any(map(path.startswith, paths))
    advice = "delete files there, or set TMPDIR to a folder on another disk" if is_temporary else "delete files there"
    return (
        f"{words}; the disk of {path} now has {free} free of {total} (perhaps after unfinished files were removed); "
        f"{advice}, then run the same command again"
    )


def _existing(path: str) -> str:
    """Returns the path, or its nearest parent that exists."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
