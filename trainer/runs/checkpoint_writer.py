"""Checkpoints written beside training: a copy is taken between two steps, and a thread writes it.

Every worker writes the rows it owns and tells the chief their checksums; the chief publishes the whole by a rename.
What one worker cannot write is no checkpoint: it is withdrawn, the earlier ones stay, and training goes on.
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
from common.storage.paths import join, shard_name
from trainer.distributed.embeddings import RowShards
from trainer.distributed.replicas import Replicas
from trainer.runs.checkpoint import DENSE, STATE, CheckpointMetadata, TrainState, keep_best_and_last
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

_CHECKSUMS = "checksums"
"""What a worker wrote, for the chief; gone once the state tells of all."""
_MIB = 1 << 20
_POLL_SECONDS = 0.2

Pieces = Sequence[bytes | memoryview]
"""What a file holds, one after the other."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written; `written` gives the SHA-256 of this worker's files by name."""

    step: int
    written: Future[dict[str, str]]


class CheckpointWriter:
    """Writes a run's checkpoints, one at a time; every worker makes the same calls at the same steps.

    A copy of what this process owns is held in memory while it is written.
    """

    def __init__(self, workdir: str, parts: TrainState, replicas: Replicas, *, steps_per_epoch: int) -> None:
        self._workdir = workdir
        self._parts = parts
        self._replicas = replicas
        self._steps_per_epoch = steps_per_epoch
        self._pending: _Pending | None = None
        self._is_given_up = threading.Event()
        self._is_whole = True
        self._begun = time.monotonic()

    def is_due(self, every_seconds: float | None) -> bool:
        """Whether it is so long since a checkpoint was begun; None: never."""
        return every_seconds is not None and time.monotonic() - self._begun >= every_seconds

    def begin(self, step: int, look: Callable[[], None] = lambda: None, *, is_urgent: bool = False) -> None:
        """Begins the checkpoint of `step`; returns when a copy is taken.

        Args:
          look: called now and then while the one before is waited for, as long as all workers are there.
          is_urgent: what is still being written is given up for it, but for what is under way to a store.
        """
        if is_urgent:
            self._abort(look)
        else:
            self.finish(look)
        self._begun = time.monotonic()
        files = _copy_rows(self._parts, self._replicas.count)
        if self._replicas.is_chief:
            files[DENSE] = [_encode_dense(self._parts)]
            storage.remove(self._staging(step))
        self._replicas.wait_for_all()
        checksums = join(self._staging(step), f"{_CHECKSUMS}-{self._replicas.worker:05d}.json")
        written = _in_thread(lambda: _write_files(self._staging(step), files, checksums, self._is_given_up))
        self._pending = _Pending(step, written)

    def poll(self) -> None:
        """Publishes the checkpoint begun if every worker has written its part by now."""
        if self._pending is not None and not self._replicas.any_worker(not self._pending.written.done()):
            self._commit(self._pending)

    def finish(self, look: Callable[[], None] = lambda: None) -> bool:
        """Waits for the checkpoint begun last and publishes it; False: it could not be written.

        Args:
          look: called now and then, as long as all workers are there.
        """
        if self._pending is not None:
            self._await_all(self._pending, look)
            self._commit(self._pending)
        return self._is_whole

    def _abort(self, look: Callable[[], None]) -> None:
        """Lets go of what is being written, unless every worker has written its part after all."""
        pending = self._pending
        if pending is None:
            return
        self._is_given_up.set()
        self._await_all(pending, look)
        self._is_given_up.clear()
        if not self._replicas.any_worker(_problem_of(pending.written) is not None):
            self._commit(pending)
            return
        if self._replicas.is_chief:
            storage.remove(self._staging(pending.step))
        self._pending = None

    def _await_all(self, pending: _Pending, look: Callable[[], None]) -> None:
        """Returns once every worker has written its part, or could not."""
        while self._replicas.any_worker(not pending.written.done()):
            wait([pending.written], _POLL_SECONDS)
            look()

    def _commit(self, pending: _Pending) -> None:
        """Publishes what all workers have written, or withdraws what one of them could not write."""
        self._pending = None
        problem = _problem_of(pending.written)
        if not self._replicas.any_worker(problem is not None):
            problem = self._publish(pending.step) if self._replicas.is_chief else None
        self._is_whole = not self._replicas.any_worker(problem is not None)
        if not self._is_whole:
            log.error(
                "checkpoint of step %d could not be written: %s. It takes %s%s. Earlier ones stay; training goes on",
                pending.step,
                problem or "another worker failed",
                _mib(sum(shards.rows * shards.dim * 4 for shards in self._parts.arrays().values())),
                _free_space(self._workdir),
            )
        if self._replicas.is_chief:
            self._tidy(pending.step)

    def _tidy(self, step: int) -> None:
        try:
            if self._is_whole:
                keep_best_and_last(self._workdir)
            else:
                storage.remove(self._staging(step))
        except OSError as error:  # a store that does not answer: the next checkpoint tidies again
            log.warning("what is no longer needed could not be removed: %s", error)

    def _publish(self, step: int) -> OSError | None:
        """Lets the checkpoint appear under its name; what prevents it, if anything does."""
        staging, target = self._staging(step), RunLayout(self._workdir).checkpoint(step)
        told = [join(staging, f"{_CHECKSUMS}-{worker:05d}.json") for worker in range(self._replicas.workers)]
        try:
            state = CheckpointMetadata(
                step=step,
                epoch=step // self._steps_per_epoch,
                step_in_epoch=step % self._steps_per_epoch,
                replicas=self._replicas.count,
                arrays={name: (shards.rows, shards.dim) for name, shards in self._parts.arrays().items()},
                files={name: sha256 for path in told for name, sha256 in json.loads(storage.read_bytes(path)).items()},
            )
            for path in told:
                storage.remove(path)
            storage.write_bytes(join(staging, STATE), (json.dumps(asdict(state), indent=2) + "\n").encode())
            if staging != target:
                storage.remove(target)
                os.rename(storage.local_path(staging), storage.local_path(target))
        except OSError as error:
            return error
        return None

    def _staging(self, step: int) -> str:
        target = RunLayout(self._workdir).checkpoint(step)
        # an object store cannot rename: there a directory counts once its state.json, written last, stands
        return f"{target}.partial" if storage.is_local(target) else target


def _in_thread(work: Callable[[], dict[str, str]]) -> Future[dict[str, str]]:
    """What `work` gives, once a thread has done it; a run that ends without it does not wait for the thread."""
    given: Future[dict[str, str]] = Future()

    def run() -> None:
        try:
            given.set_result(work())
        except BaseException as error:  # noqa: BLE001 (whoever asks for the result gets it)
            given.set_exception(error)

    threading.Thread(target=run, name="checkpoint", daemon=True).start()
    return given


def _copy_rows(parts: TrainState, replicas: int) -> dict[str, Pieces]:
    """A copy of every array's rows that this process owns, as .npy files by name."""
    return {
        shard_name(name, replica, replicas, ".npy"): _copy_shard(shards, replica)
        for name, shards in parts.arrays().items()
        for replica in shards.shards
    }


def _copy_shard(shards: RowShards, replica: int) -> Pieces:
    header = io.BytesIO()
    shape = tuple(shards.shards[replica].shape)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return [header.getvalue(), *(np.ascontiguousarray(chunk).data for chunk in shards.chunks(replica))]


def _encode_dense(parts: TrainState) -> bytes:
    """Dense weights and their optimizer's variables as the bytes of a .npz file."""
    arrays: dict[str, Any] = {}
    for prefix, variables in (("weight", parts.dense), ("optimizer", parts.optimizer)):
        arrays |= {f"{prefix}_{number}": np.asarray(variable) for number, variable in enumerate(variables)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write_files(
    staging: str, files: dict[str, Pieces], checksums: str, is_given_up: threading.Event
) -> dict[str, str]:
    """Writes the files and tells their SHA-256 by name, also in the file `checksums`.

    Raises:
      OSError: it cannot be written, or was given up.
    """
    if storage.is_local(staging):
        written = _write_locally(storage.local_path(staging), files, is_given_up)
    else:
        folder = storage.make_scratch("cartwheel-checkpoint")
        try:
            names = list(_write_locally(folder, files, is_given_up))
            _refuse_given_up(is_given_up)
            written = storage.upload_all(folder, names, staging)
        finally:
            shutil.rmtree(folder)
    storage.write_bytes(checksums, json.dumps(written).encode())
    return written


def _write_locally(folder: str, files: dict[str, Pieces], is_given_up: threading.Event) -> dict[str, str]:
    """Writes the files into a folder; their SHA-256 by name."""
    os.makedirs(folder, exist_ok=True)
    # one array less in memory with each that is written
    return {name: _write_file(join(folder, name), files.pop(name), is_given_up) for name in list(files)}


def _write_file(path: str, pieces: Pieces, is_given_up: threading.Event) -> str:
    """Writes a file; its SHA-256, taken on the way, so that nothing is read again."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for piece in pieces:
            _refuse_given_up(is_given_up)
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _refuse_given_up(is_given_up: threading.Event) -> None:
    if is_given_up.is_set():
        raise OSError("given up for the checkpoint of a later step")


def _problem_of(written: Future[dict[str, str]]) -> OSError | None:
    try:
        written.result()
    except OSError as error:
        return error
    return None


def _free_space(workdir: str) -> str:
    if not storage.is_local(workdir):
        return ""
    return f", of which {_mib(shutil.disk_usage(storage.local_path(workdir)).free)} are free"


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
