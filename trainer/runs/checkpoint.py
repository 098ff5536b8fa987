"""Checkpoints: what they hold, keep the last and the best, resume; `checkpoint_writer` writes them.

    checkpoints/
      step-000001200/
        visitor.values-00000-of-00002.npy        row r of the table is row r // 2 of the file r % 2
        visitor.accumulator-00000-of-00002.npy   and so is each array that the optimizer keeps beside it
        dense.npz                                dense weights and their optimizer's variables
        state.json                               position, shapes, SHA-256 of every file; written last
      validations.json                           what the checkpoints reached on the validation split

Each owner of rows writes and reads its own; a checkpoint written by R replicas is read by any number. A local directory
appears under its name only when it is complete; one in an object store, where the files are uploaded from a local copy,
counts only once its state.json stands.

Shapes: D columns of a table.
"""

import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Literal, Protocol

import keras
import numpy as np

from common import storage
from common.storage.paths import join, shard_name
from trainer.distributed.embeddings import CHUNK_ROWS, RowShards, ShardedTable
from trainer.distributed.replicas import Replicas, rows_owned
from trainer.runs.layout import RunLayout, checkpoint_step

log = logging.getLogger(__name__)

STATE, DENSE, _VALIDATIONS = "state.json", "dense.npz", "validations.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """What a checkpoint holds.

    step       steps done
    replicas   that wrote it: files an array
    arrays     [rows, D] of each array, by name: `visitor.values`
    files      SHA-256 by name
    """

    step: int
    epoch: int
    step_in_epoch: int
    replicas: int
    arrays: dict[str, tuple[int, int]]
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Validations:
    """What the checkpoints reached on the validation split, by step."""

    metric: str
    is_higher_better: bool
    values: dict[int, float]

    def since_best(self, step: int) -> int:
        """Measures up to `step` that came after the best of them: what patience counts, wherever a run is resumed."""
        sign = -1 if self.is_higher_better else 1
        upto = [sign * value for other, value in sorted(self.values.items()) if other <= step]
        return len(upto) - 1 - upto.index(min(upto)) if upto else 0


class Table(Protocol):
    """An array [rows, D] float32, of which pieces are asked for: a NumPy array is one, and so is a `StoredTable`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """[n, D]: the rows of a slice without a step."""


@dataclass(frozen=True)
class Weights:
    """A trained model's weights.

    tables   [rows, D] each, rows in natural order
    dense    in the model's own order
    """

    tables: Mapping[str, Table]
    dense: Sequence[np.ndarray]


class StoredTable:
    """An array of a checkpoint, read piece by piece: a table is never in memory beside what is made of it."""

    def __init__(self, folder: str, state: "CheckpointMetadata", name: str) -> None:
        self._dim = state.arrays[name][1]
        self._rows = state.arrays[name][0]
        self._files = [shard_name(name, replica, state.replicas, ".npy") for replica in range(state.replicas)]
        self._checksums = [state.files[file] for file in self._files]
        self._folder = folder

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._rows, self._dim

    def __getitem__(self, rows: slice) -> np.ndarray:
        """[n, D] float32: rows start … stop - 1 in natural order."""
        start, stop, _ = rows.indices(self._rows)
        count = len(self._files)
        found = np.empty((max(stop - start, 0), self._dim), np.float32)
        for replica in range(count):
            first, last = (rows_owned(row, replica, count) for row in (start, stop))
            if last > first:
                found[(replica - start) % count :: count] = self.shard(replica, first, last)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole array, for those who do without saving memory."""
        return np.asarray(self[:], dtype)

    def shard(self, replica: int, first: int, last: int) -> np.ndarray:
        """[last - first, D] float32: what one of the replicas that wrote it has at the places first … last - 1."""
        path = join(self._folder, self._files[replica])
        with storage.local_copy(path, self._checksums[replica]) as local, open(local, "rb") as file:
            _skip_header(file)
            file.seek(first * self._dim * 4, io.SEEK_CUR)
            return np.fromfile(file, "<f4", (last - first) * self._dim).reshape(-1, self._dim)


@dataclass(frozen=True)
class TrainState:
    """What is saved: tables, dense weights, and the variables of the dense weights' optimizer."""

    tables: Mapping[str, ShardedTable]
    dense: Sequence[keras.Variable]
    optimizer: Sequence[keras.Variable]

    def arrays(self) -> dict[str, RowShards]:
        """Every row-sharded array by its name in a checkpoint."""
        arrays = {}
        for name, table in self.tables.items():
            arrays[f"{name}.values"] = table.values
            arrays |= {f"{name}.{slot}": shards for slot, shards in table.slots.items()}
        return arrays


def restore(workdir: str, parts: TrainState, step: int) -> CheckpointMetadata:
    """Fills tables and dense weights with the checkpoint of `step`, and tells what it holds.

    Each process reads the rows that it owns: its own files, where as many replicas wrote the checkpoint.

    Raises:
      ValueError: its arrays have other names or shapes than `parts`.
    """
    folder = RunLayout(workdir).checkpoint(step)
    state = _read_state(folder)
    arrays = parts.arrays()
    expected = {name: (shards.rows, shards.dim) for name, shards in arrays.items()}
    if state.arrays != expected:
        raise ValueError(f"{folder} holds {state.arrays}, this model has {expected}; train into another --workdir")
    for name, shards in arrays.items():
        _restore_array(shards, StoredTable(folder, state, name), is_alike=state.replicas == shards.replicas)
    saved = _read_dense(folder)
    for prefix, variables in (("weight", parts.dense), ("optimizer", parts.optimizer)):
        for number, variable in enumerate(variables):
            variable.assign(saved[f"{prefix}_{number}"])
    return state


def _restore_array(shards: RowShards, stored: StoredTable, *, is_alike: bool) -> None:
    """Fills an array; `is_alike`: its shards are those that were stored."""
    if not is_alike:
        for start in range(0, shards.rows, CHUNK_ROWS):
            shards.assign(start, stored[start : start + CHUNK_ROWS])
        return
    for replica, shard in shards.shards.items():
        for first in range(0, shard.shape[0], CHUNK_ROWS):
            shards.assign_owned(replica, first, stored.shard(replica, first, min(first + CHUNK_ROWS, shard.shape[0])))


def last_step(workdir: str, replicas: Replicas | None = None) -> int | None:
    """The step of the last checkpoint that is whole, None if there is none; torn ones are skipped with a warning.

    Args:
      replicas: whose workers ask together: each verifies a part of the files, and all get the same answer.
    """
    return _first_whole(workdir, list(reversed(_list_steps(workdir))), replicas)


def _first_whole(workdir: str, steps: Sequence[int], replicas: Replicas | None) -> int | None:
    """The first of `steps` whose checkpoint is whole; the chief's list counts, for the workers' may differ."""
    worker, workers = (replicas.worker, replicas.workers) if replicas is not None else (0, 1)
    count = int(_of_chief(np.array(len(steps)), replicas))
    own = np.zeros(count, np.int64)
    own[: len(steps)] = steps[:count]
    for step in _of_chief(own, replicas).tolist():
        folder = RunLayout(workdir).checkpoint(step)
        problem = _find_problem(folder, worker, workers)
        is_bad = problem is not None
        if not (is_bad if replicas is None else replicas.any_worker(is_bad)):
            return int(step)
        log.warning("checkpoint %s is skipped: %s", folder, problem or "another worker found it damaged")
    return None


def _of_chief(value: np.ndarray, replicas: Replicas | None) -> np.ndarray:
    """The chief's array, of the same shape on every worker."""
    if replicas is None:
        return value
    return replicas.sum_over_workers(value if replicas.is_chief else np.zeros_like(value))


def table_shapes(workdir: str) -> dict[str, tuple[int, int]]:
    """[rows, D] of each table, as the latest checkpoint has them; empty without one."""
    steps = _list_steps(workdir, has_state=True)
    arrays = _read_state(RunLayout(workdir).checkpoint(steps[-1])).arrays if steps else {}
    return {name.removesuffix(".values"): shape for name, shape in arrays.items() if name.endswith(".values")}


def best_step(workdir: str) -> int | None:
    """The step that did best on the validation split, of those kept; the first of equals; None if none was measured."""
    return next(iter(_best_first(workdir)), None)


def _best_first(workdir: str) -> list[int]:
    """The kept steps that were measured, the best first and of equals the earlier."""
    validations = read_validations(workdir)
    kept = set(_list_steps(workdir, has_state=True))
    sign = -1 if validations.is_higher_better else 1
    ranked = sorted((sign * value, step) for step, value in validations.values.items() if step in kept)
    return [step for _, step in ranked]


def read_validations(workdir: str) -> Validations:
    """What each measured step reached; empty before the first measure."""
    try:
        content = json.loads(storage.read_bytes(join(RunLayout(workdir).checkpoints, _VALIDATIONS)))
    except FileNotFoundError:
        return Validations(metric="", is_higher_better=False, values={})
    return Validations(**{**content, "values": {int(step): value for step, value in content["values"].items()}})


def record_validation(workdir: str, step: int, value: float, *, metric: str, is_higher_better: bool) -> None:
    """Keeps what `step` reached; later steps, measured by a run that was killed, are dropped."""
    earlier = {other: old for other, old in read_validations(workdir).values.items() if other < step}
    validations = Validations(metric=metric, is_higher_better=is_higher_better, values=earlier | {step: value})
    content = json.dumps(asdict(validations), indent=2) + "\n"
    storage.write_bytes(join(RunLayout(workdir).checkpoints, _VALIDATIONS), content.encode())


def keep_best_and_last(workdir: str) -> None:
    """Removes all checkpoints but the best and the last two: should the last be damaged, the one before is there."""
    best = best_step(workdir)
    kept = {*_list_steps(workdir, has_state=True)[-2:], *([] if best is None else [best])}
    names = {os.path.basename(RunLayout(workdir).checkpoint(step)) for step in kept} | {_VALIDATIONS}
    folder = RunLayout(workdir).checkpoints
    for name in sorted({name.split("/")[0] for name in storage.list_files(folder)} - names):
        storage.remove(join(folder, name))


def read_weights(workdir: str, which: Literal["best", "last"] = "best") -> Weights:
    """The weights of a run's checkpoint, see `choose_step`; tables are read as they are sliced."""
    return read_weights_of_step(workdir, choose_step(workdir, which))


def weights_checksum(workdir: str, step: int) -> str:
    """SHA-256 that stands for a checkpoint's weights: of the state that holds the checksum of every file."""
    return storage.sha256(join(RunLayout(workdir).checkpoint(step), STATE))


def choose_step(workdir: str, which: Literal["best", "last"] = "best", replicas: Replicas | None = None) -> int:
    """The step of a run's checkpoint to work with: whole, for a damaged one is skipped with a warning.

    Args:
      which: the best on the validation split, or the last; a run that was never measured has its last as its best.
      replicas: whose workers ask together, and get the same answer.

    Raises:
      ValueError: there is no checkpoint.
    """
    best = _best_first(workdir) if which == "best" else []
    others = [step for step in reversed(_list_steps(workdir)) if step not in best]
    step = _first_whole(workdir, best + others, replicas)
    if step is None:
        raise ValueError(f"{workdir} holds no checkpoint that is whole; train the run first")
    return step


def read_weights_of_step(workdir: str, step: int) -> Weights:
    """The weights of a checkpoint that is whole; tables are read as they are sliced."""
    state = read_state(workdir, step)
    kinds = {name: name.rpartition(".") for name in state.arrays}
    tables = {table: read_array(workdir, state, name) for name, (table, _, kind) in kinds.items() if kind == "values"}
    return Weights(tables, read_dense_weights(workdir, step))


def read_state(workdir: str, step: int) -> CheckpointMetadata:
    """What the checkpoint of `step`, which is whole, holds."""
    return _read_state(RunLayout(workdir).checkpoint(step))


def read_array(workdir: str, state: CheckpointMetadata, name: str) -> StoredTable:
    """An array [rows, D] of a checkpoint, rows in natural order, read as it is sliced."""
    return StoredTable(RunLayout(workdir).checkpoint(state.step), state, name)


def read_dense_weights(workdir: str, step: int) -> list[np.ndarray]:
    """The dense weights of a checkpoint, in the model's own order."""
    saved = _read_dense(RunLayout(workdir).checkpoint(step))
    return [saved[f"weight_{number}"] for number in range(sum("weight" in key for key in saved))]


def _list_steps(workdir: str, *, has_state: bool = False) -> list[int]:
    """Steps of the checkpoints, ascending; `has_state`: only of those that have their state, which is written last."""
    names = [name.split("/") for name in storage.list_files(RunLayout(workdir).checkpoints)]
    found = {checkpoint_step(name[0]) for name in names if not has_state or name[1:] == [STATE]}
    return sorted(step for step in found if step is not None)


def _find_problem(folder: str, worker: int, workers: int) -> str | None:
    """Why a checkpoint cannot be used, None if it can, for all that one of several workers looks at of it."""
    try:
        files = sorted(_read_state(folder).files.items())
        for name, expected in files[worker::workers]:
            if not storage.is_intact(join(folder, name), expected):
                return f"{name} differs from what was written"
    except FileNotFoundError as error:
        return f"{os.path.basename(error.filename or str(error))} is missing"
    except (KeyError, TypeError, ValueError) as error:
        return f"{STATE} is damaged ({error})"
    return None


def _read_state(folder: str) -> CheckpointMetadata:
    values = json.loads(storage.read_bytes(join(folder, STATE)))
    return CheckpointMetadata(**{**values, "arrays": {name: tuple(shape) for name, shape in values["arrays"].items()}})


def _skip_header(file: BinaryIO) -> None:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)


def _read_dense(folder: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(storage.read_bytes(join(folder, DENSE)))) as saved:
        return dict(saved)
