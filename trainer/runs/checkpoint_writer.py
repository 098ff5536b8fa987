"""Writes checkpoints during training: copies the state between two steps, and writes the copy in a thread.

Every worker writes the rows it owns and passes their checksums to the chief, which publishes the checkpoint by a
rename. If a worker cannot write its part, the checkpoint is dropped and training continues; earlier checkpoints remain.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from common import storage
from common.sealed_json import encode_sealed
from common.storage.paths import join, shard_name
from trainer.distributed.embeddings import RowShards
from trainer.distributed.replicas import Replicas
from trainer.runs.checkpoint import DENSE, STATE, CheckpointMetadata, TrainState, keep_best_and_last
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

_CHECKSUMS = "checksums"
"""Prefix of the file with a worker's checksums; the chief copies them to state.json and removes the file."""
_MIB = 1 << 20
_POLL_SECONDS = 0.2

Pieces = Sequence[bytes | memoryview]
"""Contents of a file, as consecutive pieces."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written."""

    step: int
    """Step of the checkpoint."""
    written: Future[dict[str, str]]
    """Result of the thread that writes this worker's files: their SHA-256, by name."""


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time, while training continues.

    All workers must call the same methods at the same steps. Each process copies its rows in memory first.
    """

    def __init__(self, workdir: str, state: TrainState, replicas: Replicas, *, run: str, steps_per_epoch: int) -> None:
        """Creates a writer; `run` is the identity of the run, from `record.run_identity`."""
        self._workdir = workdir
        self._run = run
        self._state = state
        self._replicas = replicas
        self._steps_per_epoch = steps_per_epoch
        self._pending: _Pending | None = None
        self._is_aborted = threading.Event()
        self._is_whole = True
        self._started = time.monotonic()

    def is_due(self, every_seconds: float | None) -> bool:
        """Returns whether the last checkpoint was started at least `every_seconds` ago; None: always False.

        Before the first checkpoint, the time counts from the creation of the writer.
        """
        return every_seconds is not None and time.monotonic() - self._started >= every_seconds

    def begin(self, step: int, on_progress: Callable[[], None] = lambda: None, *, is_urgent: bool = False) -> None:
        """Starts the checkpoint of `step`, after the previous one is published or has failed.

        Returns when the rows are copied in memory; a thread writes the copy to storage.

        Args:
          step: number of training steps done.
          on_progress: called repeatedly while waiting, as long as all workers respond.
          is_urgent: whether to abort the previous checkpoint instead of waiting, unless its upload has started.
        """
        if is_urgent:
            self._abort(on_progress)
        else:
            self.finish(on_progress)
        self._started = time.monotonic()
        files = _copy_rows(self._state, self._replicas.count)
        if self._replicas.is_chief:
            self._check_owner()
            files[DENSE] = [_encode_dense(self._state)]
            storage.remove(self._staging(step))
        self._replicas.wait_for_all()
        checksums = join(self._staging(step), f"{_CHECKSUMS}-{self._replicas.worker:05d}.json")
        written = _run_in_thread(
            lambda: _write_files(self._staging(step), files, checksums, self._is_aborted, self._check_owner)
        )
        self._pending = _Pending(step, written)

    def poll(self) -> None:
        """Publishes the started checkpoint if all workers have written it; drops it if a worker failed."""
        if self._pending is not None and not self._replicas.any_worker(not self._pending.written.done()):
            self._commit(self._pending)

    def finish(self, on_progress: Callable[[], None] = lambda: None) -> bool:
        """Waits for the started checkpoint; publishes it, or drops it if a worker failed.

        Args:
          on_progress: called repeatedly while waiting, as long as all workers respond.

        Returns:
          False if the last started checkpoint was dropped, else True.
        """
        if self._pending is not None:
            self._await_all(self._pending, on_progress)
            self._commit(self._pending)
        return self._is_whole

    def _check_owner(self) -> None:
        """Raises OwnershipLostError if another process has taken over the run."""
        storage.try_to_check_ownership(self._workdir)

    def _abort(self, on_progress: Callable[[], None]) -> None:
        """Aborts the started checkpoint, or publishes it if all workers have written it."""
        pending = self._pending
        if pending is None:
            return
        self._is_aborted.set()
        self._await_all(pending, on_progress)
        self._is_aborted.clear()
        if not self._replicas.any_worker(_problem_of(pending.written) is not None):
            self._commit(pending)
            return
        if self._replicas.is_chief:
            self._check_owner()
            storage.remove(self._staging(pending.step))
        self._pending = None

    def _await_all(self, pending: _Pending, on_progress: Callable[[], None]) -> None:
        while self._replicas.any_worker(not pending.written.done()):
            wait([pending.written], _POLL_SECONDS)
            on_progress()

    def _commit(self, pending: _Pending) -> None:
        """Publishes the checkpoint if all workers have written it, otherwise drops it."""
        self._pending = None
        problem = _problem_of(pending.written)
        if not self._replicas.any_worker(problem is not None):
            problem = self._publish(pending.step) if self._replicas.is_chief else None
        self._is_whole = not self._replicas.any_worker(problem is not None)
        if not self._is_whole:
            log.error(
                "checkpoint of step %d could not be written: %s. The checkpoint needs %s%s. "
                "Earlier checkpoints are kept; training continues",
                pending.step,
                problem or "another worker failed",
                _mib(sum(shards.rows * shards.dim * 4 for shards in self._state.arrays().values())),
                _free_space(self._workdir),
            )
        if self._replicas.is_chief:
            self._tidy(pending.step)

    def _tidy(self, step: int) -> None:
        self._check_owner()
        try:
            if self._is_whole:
                keep_best_and_last(self._workdir)
            else:
                storage.remove(self._staging(step))
        except OSError as error:  # the store does not answer: the next checkpoint removes the leftovers
            log.warning(
                "old checkpoints of %s could not be removed (%s); retrying at the next checkpoint", self._workdir, error
            )

    def _publish(self, step: int) -> OSError | None:
        """On the chief, writes state.json and renames the checkpoint; returns the error if the storage fails."""
        staging, target = self._staging(step), RunLayout(self._workdir).checkpoint(step)
        checksums = [join(staging, f"{_CHECKSUMS}-{worker:05d}.json") for worker in range(self._replicas.workers)]
        try:
            storage.check_ownership(self._workdir)
            metadata = CheckpointMetadata(
                run=self._run,
                step=step,
                epoch=step // self._steps_per_epoch,
                step_in_epoch=step % self._steps_per_epoch,
                replicas=self._replicas.count,
                arrays={name: (shards.rows, shards.dim) for name, shards in self._state.arrays().items()},
                files={
                    name: sha256 for path in checksums for name, sha256 in json.loads(storage.read_bytes(path)).items()
                },
            )
            for path in checksums:
                storage.remove(path)
            storage.check_ownership(self._workdir)  # again, because the reads and removals may take long
            storage.write_bytes(join(staging, STATE), encode_sealed(asdict(metadata)))
            if staging != target:
                storage.check_ownership(self._workdir)  # the target could be a successor's
                storage.remove(target)
                os.rename(storage.local_path(staging), storage.local_path(target))
        except storage.OwnershipError:
            raise
        except OSError as error:
            return error
        return None

    def _staging(self, step: int) -> str:
        target = RunLayout(self._workdir).checkpoint(step)
        # object stores cannot rename; there, state.json marks a complete checkpoint
        return f"{target}.partial" if storage.is_local(target) else target


def _run_in_thread(work: Callable[[], dict[str, str]]) -> Future[dict[str, str]]:
    """Runs `work` in a daemon thread; the process can end before the thread."""
    result: Future[dict[str, str]] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 (raised by `result`)
            result.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return result


def _copy_rows(state: TrainState, replicas: int) -> dict[str, Pieces]:
    """Copies the table rows of this process in memory; returns the contents of its .npy files, by file name."""
    return {
        shard_name(name, replica, replicas, ".npy"): _copy_shard(shards, replica)
        for name, shards in state.arrays().items()
        for replica in shards.shards
    }


def _copy_shard(shards: RowShards, replica: int) -> Pieces:
    header = io.BytesIO()
    shape = tuple(shards.shards[replica].shape)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return [header.getvalue(), *(np.ascontiguousarray(chunk).data for chunk in shards.chunks(replica))]


def _encode_dense(state: TrainState) -> bytes:
    """Returns the content of dense.npz: the dense weights and their optimizer variables."""
    arrays: dict[str, Any] = {}
    for prefix, variables in (("weight", state.dense), ("optimizer", state.optimizer)):
        arrays |= {f"{prefix}_{number}": np.asarray(variable) for number, variable in enumerate(variables)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write_files(
    staging: str,
    files: dict[str, Pieces],
    checksums: str,
    is_aborted: threading.Event,
    before_each: Callable[[], None],
) -> dict[str, str]:
    """Writes this worker's files, then a JSON file with their checksums.

    Args:
      staging: directory or URI to write the files to.
      files: contents of the files, by name; written entries are removed, to free memory.
      checksums: path or URI of the file with the checksums.
      is_aborted: another thread sets this event to stop the writing.
      before_each: called before each file; its errors stop the writing.

    Returns:
      The SHA-256 of each file, by name.

    Raises:
      OSError: a file cannot be written, or `is_aborted` was set.
    """
    if storage.is_local(staging):
        written = _write_locally(storage.local_path(staging), files, is_aborted, before_each)
    else:
        folder = storage.make_scratch("checkpoint")
        try:
            names = list(_write_locally(folder, files, is_aborted, before_each))
            _raise_if_aborted(is_aborted)
            written = storage.upload_all(folder, names, staging, before_each)
        finally:
            shutil.rmtree(folder)
    before_each()
    storage.write_bytes(checksums, json.dumps(written, allow_nan=False).encode())
    return written


def _write_locally(
    folder: str, files: dict[str, Pieces], is_aborted: threading.Event, before_each: Callable[[], None]
) -> dict[str, str]:
    """Writes files into a local folder; see `_write_files`."""
    os.makedirs(folder, exist_ok=True)
    written = {}
    for name in list(files):
        before_each()
        written[name] = _write_file(join(folder, name), files.pop(name), is_aborted)  # frees the array
    return written


def _write_file(path: str, pieces: Pieces, is_aborted: threading.Event) -> str:
    """Writes a file and returns its SHA-256; raises OSError if `is_aborted` is set."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for piece in pieces:
            _raise_if_aborted(is_aborted)
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _raise_if_aborted(is_aborted: threading.Event) -> None:
    if is_aborted.is_set():
        raise OSError("cancelled, because a later checkpoint replaces it")


def _problem_of(written: Future[dict[str, str]]) -> OSError | None:
    try:
        written.result()
    except storage.OwnershipError:
        raise
    except OSError as error:
        return error
    return None


def _free_space(workdir: str) -> str:
    if not storage.is_local(workdir):
        return ""
    return f", and the disk has {_mib(shutil.disk_usage(storage.local_path(workdir)).free)} free"


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
