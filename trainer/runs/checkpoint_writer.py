"""Writes checkpoints during training: reads the state between two steps, and writes it in another thread.

Every worker writes the rows that it owns and a file with their checksums; then the chief publishes the checkpoint by a
rename. If a worker cannot write its part, the checkpoint is dropped and training continues; earlier checkpoints remain.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass

from common import storage
from common.sealed_json import encode_sealed
from common.storage.paths import join
from trainer.distributed.replicas import Replicas
from trainer.runs import checkpoint_files
from trainer.runs.checkpoint import STATE, CheckpointMetadata, TrainState, keep_best_and_last
from trainer.runs.file_stream import FileStream
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

_CHECKSUMS = "checksums"
"""Prefix of the file with a worker's checksums; the chief copies them to state.json and removes the file."""
_MIB = 1 << 20
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written."""

    step: int
    """Step of the checkpoint."""
    written: Future[dict[str, str]]
    """Result of the thread that writes this worker's files: their SHA-256, by name."""


class CheckpointWriter:
    """Writes the checkpoints of a run, one at a time. All workers must call the same methods at the same steps."""

    def __init__(self, workdir: str, state: TrainState, replicas: Replicas, *, run: str, steps_per_epoch: int) -> None:
        """Creates a writer; `run` is the identity of the run, from `record.run_identity`."""
        self._workdir = workdir
        self._run = run
        self._state = state
        self._replicas = replicas
        self._steps_per_epoch = steps_per_epoch
        self._pending: _Pending | None = None
        self._is_published = True
        self._training_since = time.monotonic()

    def is_due(self, every_seconds: float | None) -> bool:
        """Returns whether training has run for `every_seconds` since the last checkpoint; None: always False.

        Before the first checkpoint, the time counts from the creation of the writer.
        """
        return every_seconds is not None and time.monotonic() - self._training_since >= every_seconds

    def begin(self, step: int, on_progress: Callable[[], None] = lambda: None) -> None:
        """Starts the checkpoint of `step`, after the previous one is published or has failed.

        Returns when all workers have read their rows: at once if they fit into the limited memory of `open_stream`,
        otherwise when most of them are written to the local disk. The rest is written, and uploaded, during training.

        Args:
          step: number of training steps done.
          on_progress: called repeatedly while waiting, as long as all workers respond.
        """
        self.finish(on_progress)
        if self._replicas.is_chief:
            self._check_owner()
            storage.remove(self._staging(step))
        self._replicas.wait_for_all()
        self._read_rows(self._start_writing(step), on_progress)
        # the time after the pause; a long pause would otherwise leave no time to train
        self._training_since = time.monotonic()

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
        return self._is_published

    def _check_owner(self) -> None:
        """Raises OwnershipLostError if another process has taken over the run."""
        storage.try_to_check_ownership(self._workdir)

    def _start_writing(self, step: int) -> FileStream:
        staging = self._staging(step)
        stream = checkpoint_files.open_stream(self._state, has_dense=self._replicas.is_chief)
        checksums = join(staging, f"{_CHECKSUMS}-{self._replicas.worker:05d}.json")
        written = _run_in_thread(lambda: checkpoint_files.write_files(staging, stream, checksums, self._check_owner))
        self._pending = _Pending(step, written)
        return stream

    def _read_rows(self, stream: FileStream, on_progress: Callable[[], None]) -> None:
        """Passes the rows of this process to the writing thread; returns when all workers have done so, or failed."""
        try:
            while self._replicas.any_worker(not stream.advance(_POLL_SECONDS)):
                on_progress()
        except BaseException:
            stream.cancel()  # otherwise the writing thread would wait forever for the remaining rows
            raise

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
        self._is_published = not self._replicas.any_worker(problem is not None)
        if not self._is_published:
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
            if self._is_published:
                keep_best_and_last(self._workdir)
            else:
                storage.remove(self._staging(step))
        except OSError as error:  # the storage failed; the next checkpoint removes the leftovers
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
                storage.check_ownership(self._workdir)  # a successor may have published the target
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
