"""Publishes a directory only when all its shards are complete. If the process is killed, the finished shards are kept.

    OUTPUT.partial/   in an object store, which cannot rename: OUTPUT itself
      _unfinished     the record: the inputs of the shards, and the SHA-256 of every finished file
      …               the files

The record is updated after all files of a shard are written, so it never lists a half-written shard. A resumed job
writes such a shard again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common import storage
from common.json_files import encode_json
from common.storage.paths import join

log = logging.getLogger(__name__)

_RECORD = storage.CLAIM


@dataclass(frozen=True)
class ResumableOutput:
    """An output directory that a process is still writing."""

    destination: str
    """Final path of the directory."""
    folder: str
    """Directory that the files are written to."""
    marker: str
    """Name of the file that is written last: readers treat a directory without it as incomplete."""
    inputs: Mapping[str, Any]
    """JSON values that determine the contents of the files. An output is resumed only with equal inputs."""
    finished: dict[str, str]
    """SHA-256 of the finished files, by name."""

    def has(self, names: Iterable[str]) -> bool:
        """Returns whether all files with these names are finished."""
        return all(name in self.finished for name in names)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Writes all files of one shard; `files` maps names to contents."""
        storage.check_ownership(self.destination)
        if not self.finished:  # not earlier: a failure before the first shard leaves nothing behind
            self._write_record()
        with storage.explain_full_disk(self.folder):
            checksums = {name: _write_verified(join(self.folder, name), content) for name, content in files.items()}
            self.finished.update(checksums)
            self._write_record()

    def publish(self, marker: bytes) -> None:
        """Writes the marker file, and moves the directory to its final path."""
        storage.check_ownership(self.destination)
        storage.write_bytes(join(self.folder, self.marker), marker)
        if self.folder != self.destination:
            storage.refuse_existing(self.destination)  # it may have been created meanwhile
            storage.check_ownership(self.destination)  # the files could be a successor's, and unfinished
            os.rename(self.folder, self.destination)  # replaces an empty directory
        storage.record_publication(self.destination)
        storage.check_ownership(self.destination)
        storage.remove(join(self.destination, _RECORD))

    def _write_record(self) -> None:
        record = {"inputs": self.inputs, "finished": self.finished}
        storage.write_bytes(join(self.folder, _RECORD), encode_json(record))


def open_output(destination: str, inputs: Mapping[str, Any], *, marker: str) -> ResumableOutput:
    """Opens a new output, or resumes an unfinished output with the same inputs.

    A resumed output keeps the finished shards and removes all other files.

    Args:
      destination: final path of the directory.
      inputs: JSON values that determine the contents of the files.
      marker: name of the file that is written last, see `ResumableOutput.marker`.

    Raises:
      FileExistsError: `destination` exists, or there is an unfinished output with other inputs or a damaged record.
    """
    storage.refuse_existing(destination, marker=marker)
    storage.check_writable(destination)
    is_local = storage.is_local(destination)
    path = storage.local_path(destination) if is_local else destination.rstrip("/")
    output = ResumableOutput(path, f"{path}.partial" if is_local else path, marker, inputs, {})
    record = _read_record(output.folder)
    names = storage.list_files(output.folder)
    if record is None and any(not name.startswith(_RECORD) for name in names):
        raise FileExistsError(
            f"{output.folder} contains files, but no record of an interrupted command that could be resumed; move or "
            "remove the directory, or choose another output"
        )
    if record is not None:
        _check_same(output, record["inputs"])
        output.finished.update(_intact(output.folder, record["finished"]))
        log.info("resuming %s: %d files are finished", output.folder, len(output.finished))
    for name in names:
        if name not in (_RECORD, *output.finished):
            storage.remove(join(output.folder, name))
    return output


def _write_verified(path: str, content: bytes) -> str:
    """Writes a file and returns the SHA-256; raises OSError if an object store returns other contents."""
    storage.write_bytes(path, content)
    checksum = hashlib.sha256(content).hexdigest()
    if not storage.is_local(path) and storage.sha256(path) != checksum:
        raise OSError(
            f"{path} was written, but then read back with different content; check whether another process writes "
            "there, then run the same command again, which rewrites this file"
        )
    return checksum


def _read_record(folder: str) -> dict[str, Any] | None:
    path = join(folder, _RECORD)
    try:
        record = json.loads(storage.read_bytes(path))
        return {"inputs": dict(record["inputs"]), "finished": dict(record["finished"])}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise FileExistsError(f"{path} is damaged ({error}); remove {folder} and run the same command again") from error


def _check_same(output: ResumableOutput, earlier: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(output.inputs, allow_nan=False))
    changed = [
        f"{name}: {earlier.get(name)}, now {now.get(name)}"
        for name in dict.fromkeys([*earlier, *now])
        if earlier.get(name) != now.get(name)
    ]
    if changed:
        raise FileExistsError(
            f"{output.folder} has the unfinished output of a command with other arguments ({'; '.join(changed)}); "
            "either repeat that command to finish its output, or choose another output, or remove the directory"
        )


def _intact(folder: str, finished: Mapping[str, str]) -> dict[str, str]:
    """Returns `finished` without the files that are missing or have changed; logs a warning for each of them."""
    intact = {}
    for name, expected in finished.items():
        path = join(folder, name)
        if storage.exists(path) and storage.sha256(path) == expected:
            intact[name] = expected
        else:
            log.warning("%s is missing or has changed since it was written; writing it again", path)
    return intact
