"""A directory of shards that takes long to make: it appears whole, and what a killed process finished is kept.

    OUTPUT.partial/   in an object store, which cannot rename, OUTPUT itself
      _unfinished     what the shards are made of, and the SHA-256 of every file of those that are finished
      …               the files

A shard counts once the record tells of it, which is written after its files: one that is half-written is made again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common import storage
from common.storage.paths import join

log = logging.getLogger(__name__)

_RECORD = storage.CLAIM


@dataclass(frozen=True)
class ResumableOutput:
    """An unfinished directory.

    destination   where it will appear
    folder        where its files are written
    marker        the file by which readers know that it is whole
    made_of       JSON values that decide what the files hold
    finished      SHA-256 of the files that count, by name
    """

    destination: str
    folder: str
    marker: str
    made_of: Mapping[str, Any]
    finished: dict[str, str]

    def has(self, names: Iterable[str]) -> bool:
        """Whether all these files are finished."""
        return all(name in self.finished for name in names)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Adds the files of one shard, by name."""
        if not self.finished:  # what fails before its first shard leaves nothing behind
            self._write_record()
        checksums = {name: _write_verified(join(self.folder, name), content) for name, content in files.items()}
        self.finished.update(checksums)
        self._write_record()

    def publish(self, marker: bytes) -> None:
        """Makes the directory appear, with the content of its marker."""
        storage.write_bytes(join(self.folder, self.marker), marker)
        if self.folder != self.destination:
            storage.refuse_existing(self.destination)  # something may have come meanwhile
            os.rename(self.folder, self.destination)  # an empty directory is replaced
        storage.remove(join(self.destination, _RECORD))

    def _write_record(self) -> None:
        record = {"made_of": self.made_of, "finished": self.finished}
        storage.write_bytes(join(self.folder, _RECORD), (json.dumps(record, indent=2) + "\n").encode())


def open_output(destination: str, made_of: Mapping[str, Any], *, marker: str) -> ResumableOutput:
    """An output to write to, with the finished shards of a process that was killed while it wrote the same.

    Raises:
      FileExistsError: something stands at `destination`, or what is unfinished there is something else.
    """
    storage.refuse_existing(destination, marker=marker)
    storage.check_writable(destination)
    is_local = storage.is_local(destination)
    place = storage.local_path(destination) if is_local else destination.rstrip("/")
    output = ResumableOutput(place, f"{place}.partial" if is_local else place, marker, made_of, {})
    record = _read_record(output.folder)
    names = storage.list_files(output.folder)
    if record is None and any(not name.startswith(_RECORD) for name in names):
        raise FileExistsError(f"{output.folder} is in the way: it is not what an earlier run left; remove or rename it")
    if record is not None:
        _check_same(output, record["made_of"])
        output.finished.update(_intact(output.folder, record["finished"]))
        log.info("going on with %s: %d files are finished", output.folder, len(output.finished))
    for name in names:
        if name not in (_RECORD, *output.finished):
            storage.remove(join(output.folder, name))
    return output


def _write_verified(path: str, content: bytes) -> str:
    """Writes a file and returns its SHA-256; what travelled to a store is read again."""
    storage.write_bytes(path, content)
    checksum = hashlib.sha256(content).hexdigest()
    if not storage.is_local(path) and storage.sha256(path) != checksum:
        raise OSError(f"{path} reads otherwise than it was written; the same command goes on with it")
    return checksum


def _read_record(folder: str) -> dict[str, Any] | None:
    path = join(folder, _RECORD)
    try:
        record = json.loads(storage.read_bytes(path))
        return {"made_of": dict(record["made_of"]), "finished": dict(record["finished"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise FileExistsError(f"{path} is damaged ({error}); remove {folder} to begin anew") from error


def _check_same(output: ResumableOutput, earlier: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(output.made_of))
    changed = [
        f"{name}: {earlier.get(name)}, now {now.get(name)}"
        for name in dict.fromkeys([*earlier, *now])
        if earlier.get(name) != now.get(name)
    ]
    if changed:
        raise FileExistsError(
            f"{output.folder} holds unfinished shards of something else ({'; '.join(changed)}); give another output, "
            "or what it began with, or remove it"
        )


def _intact(folder: str, finished: Mapping[str, str]) -> dict[str, str]:
    """The files that hold what was written."""
    intact = {}
    for name, expected in finished.items():
        path = join(folder, name)
        if storage.exists(path) and storage.sha256(path) == expected:
            intact[name] = expected
        else:
            log.warning("%s differs from what was written: it is made again", path)
    return intact
