"""Checkpoints: their files, restoring, and the choice of the last or the best. `checkpoint_writer` writes them.

    checkpoints/
      step-000001200/
        visitor.values-00000-of-00002.npy        row r of the table is row r // 2 of the file r % 2
        visitor.accumulator-00000-of-00002.npy   likewise for each optimizer slot of the table
        dense.npz                                dense weights and the variables of their optimizer
        state.json                               step, shapes, SHA-256 of every other file; written last
      validations.json                           validation metrics by step

Each replica writes and reads the rows that it owns; any number of replicas can restore a checkpoint. A local
checkpoint is renamed into place when it is complete; in an object store, a checkpoint is complete once it has its
state.json.

Shapes: D columns of a table.
"""

import io
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Literal, Protocol

import keras
import numpy as np

from common import storage
from common.errors import explain_damage
from common.json_files import encode_json
from common.sealed_json import decode_sealed
from common.storage.paths import join, shard_name
from trainer.distributed.embeddings import RowShards, ShardedTable, chunk_rows
from trainer.distributed.replicas import Replicas, rows_owned
from trainer.runs.layout import RunLayout, checkpoint_step

log = logging.getLogger(__name__)

STATE, DENSE, _VALIDATIONS = "state.json", "dense.npz", "validations.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointMetadata:
    """The content of state.json of a checkpoint."""

    run: str
    """Identity of the run, from `record.run_identity`."""
    step: int
    """Number of training steps done."""
    epoch: int
    """Number of complete epochs."""
    step_in_epoch: int
    """Number of steps done in the current, incomplete epoch."""
    replicas: int
    """Number of replicas that wrote the checkpoint; each array has one file per replica."""
    arrays: dict[str, tuple[int, int]]
    """Shape [rows, D] of each array, by name such as `visitor.values`."""
    files: dict[str, str]
    """SHA-256 of each file except state.json, by the file's name."""


@dataclass(frozen=True, kw_only=True)
class Validations:
    """The content of validations.json: the validation metric by step."""

    metric: str
    """Name of the metric."""
    is_higher_better: bool
    """Whether a higher value of the metric is better."""
    values: dict[int, float]
    """Value of the metric, by the step of the validated checkpoint."""

    def since_best(self, step: int) -> int:
        """Returns the number of validations after the best one and up to `step`; 0 without validations."""
        sign = -1 if self.is_higher_better else 1
        upto = [sign * value for other, value in sorted(self.values.items()) if other <= step]
        return len(upto) - 1 - upto.index(min(upto)) if upto else 0


class Table(Protocol):
    """An array [rows, D] float32 that is read in slices: a NumPy array or a `StoredTable`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of rows and columns."""

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Returns [n, D] float32: the n rows of a slice, which must have step 1."""


@dataclass(frozen=True)
class Weights:
    """Weights of a trained model."""

    tables: Mapping[str, Table]
    """Tables [rows, D] by name; the rows are in the order of their indices."""
    dense: Sequence[np.ndarray]
    """Dense weights, in the model's order."""
    visitors: np.ndarray | None = None
    """Indices of the visitors to rank items for; a model need not read the vectors of others. None: all visitors."""

    def needed_rows(self, count: int) -> np.ndarray | None:
        """Returns the indices of the visitor table's rows that `self.visitors` need; None: all rows.

        Visitors with an index after the last row share the last row.

        Args:
          count: number of rows of the visitor table.
        """
        return None if self.visitors is None else np.clip(self.visitors, 0, count - 1)

    @contextmanager
    def kept_open(self) -> Iterator["Weights"]:
        """Yields the same weights, with the files of all tables kept open; see `StoredTable.kept_open`."""
        with ExitStack() as opened:
            tables = {
                name: opened.enter_context(table.kept_open()) if isinstance(table, StoredTable) else table
                for name, table in self.tables.items()
            }
            yield replace(self, tables=tables)


class _ShardFile:
    """An open file with the rows [n, D] float32 of a replica."""

    def __init__(self, file: BinaryIO) -> None:
        np.lib.format.read_magic(file)
        self._shape, _, _ = np.lib.format.read_array_header_1_0(file)
        self._file, self._begin = file, file.tell()

    def read(self, first: int, last: int) -> np.ndarray:
        """Reads rows `first` to `last` - 1; returns [last - first, D] float32."""
        dim = self._shape[1]
        self._file.seek(self._begin + first * dim * 4)
        return np.fromfile(self._file, "<f4", (last - first) * dim).reshape(-1, dim)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Returns [n, D] float32: the rows with the indices `rows` [n]."""
        # mapped for this call only, because the pages that were read count as the process's memory while mapped
        return np.memmap(self._file, "<f4", "r", self._begin, self._shape)[rows]


class StoredTable:
    """An array [rows, D] in the files of a checkpoint, read in slices."""

    def __init__(self, folder: str, state: "CheckpointMetadata", name: str, closing: ExitStack | None = None) -> None:
        """Reads no file yet. `closing` closes the files after the last call; None: each call closes its files."""
        self._folder, self._state, self._name = folder, state, name
        self._rows, self._dim = state.arrays[name]
        self._closing = closing
        self._kept: dict[int, _ShardFile] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self._rows, self._dim

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Returns [n, D] float32: the n rows of a slice, which must have step 1."""
        start, stop, _ = rows.indices(self._rows)
        count = self._state.replicas
        found = np.empty((max(stop - start, 0), self._dim), np.float32)
        for replica in range(count):
            first, last = (rows_owned(row, replica, count) for row in (start, stop))
            if last > first:
                found[(replica - start) % count :: count] = self.read_shard(replica, first, last)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads the whole array into memory."""
        return np.asarray(self[:], dtype)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Returns [n, D] float32: the rows with the indices `rows` [n]. Does not read the whole files."""
        count = self._state.replicas
        found = np.empty((len(rows), self._dim), np.float32)
        for replica in range(count):
            is_stored = rows % count == replica
            with self._shard_file(replica) as file:
                found[is_stored] = file.gather(rows[is_stored] // count)
        return found

    def read_shard(self, replica: int, first: int, last: int) -> np.ndarray:
        """Reads rows `first` to `last` - 1 of a replica's shard; returns [last - first, D] float32."""
        with self._shard_file(replica) as file:
            return file.read(first, last)

    @contextmanager
    def kept_open(self) -> Iterator["StoredTable"]:
        """Yields the same array for many calls, which fetch and open each file at most once in total.

        The files that were read stay open, and on the local disk, until the context ends. Use it in one thread only.
        """
        with ExitStack() as closing:
            yield StoredTable(self._folder, self._state, self._name, closing)

    def _shard_file(self, replica: int) -> AbstractContextManager[_ShardFile]:
        if self._closing is None:
            return self._open(replica)
        if replica not in self._kept:  # opened when first needed, because a worker may need only some of the files
            self._kept[replica] = self._closing.enter_context(self._open(replica))
        return nullcontext(self._kept[replica])

    @contextmanager
    def _open(self, replica: int) -> Iterator[_ShardFile]:
        name = shard_name(self._name, replica, self._state.replicas, ".npy")
        path = join(self._folder, name)
        with storage.local_copy(path, self._state.files[name]) as local, open(local, "rb") as file:
            yield _ShardFile(file)


@dataclass(frozen=True)
class TrainState:
    """The variables that a checkpoint of a training run saves."""

    tables: Mapping[str, ShardedTable]
    """Embedding tables with their optimizer slots."""
    dense: Sequence[keras.Variable]
    """Dense weights."""
    optimizer: Sequence[keras.Variable]
    """Variables of the optimizer of the dense weights."""

    def arrays(self) -> dict[str, RowShards]:
        """Returns the arrays that are divided among the replicas, by their names in a checkpoint.

        These are the values and the optimizer slots of each table, for example `visitor.values`.
        """
        arrays = {}
        for name, table in self.tables.items():
            arrays[f"{name}.values"] = table.values
            arrays |= {f"{name}.{slot}": shards for slot, shards in table.slots.items()}
        return arrays


def restore(
    workdir: str, state: TrainState, step: int, on_progress: Callable[[], None] = lambda: None
) -> CheckpointMetadata:
    """Sets the variables of a run from a checkpoint, and returns the checkpoint's metadata.

    Each process keeps only the table rows that its replicas own.

    Args:
      workdir: directory of the run.
      state: the variables to set.
      step: step of the checkpoint.
      on_progress: called after each chunk of rows.

    Raises:
      ValueError: the names or shapes of the checkpoint's arrays differ from those of `state`.
    """
    folder = RunLayout(workdir).checkpoint(step)
    metadata = _read_state(folder)
    arrays = state.arrays()
    expected = {name: (shards.rows, shards.dim) for name, shards in arrays.items()}
    if metadata.arrays != expected:
        raise ValueError(
            f"{folder} does not fit the model, perhaps because another version of Cartwheel wrote it: the sizes (rows, "
            f"width) of its tables are {metadata.arrays}, expected {expected}; train into another --workdir"
        )
    for name, shards in arrays.items():
        with StoredTable(folder, metadata, name).kept_open() as stored:
            for _ in _restore_chunks(shards, stored, has_same_shards=metadata.replicas == shards.replicas):
                on_progress()
    saved = _read_dense(folder)
    for prefix, variables in (("weight", state.dense), ("optimizer", state.optimizer)):
        for number, variable in enumerate(variables):
            variable.assign(saved[f"{prefix}_{number}"])
    return metadata


def _restore_chunks(shards: RowShards, stored: StoredTable, *, has_same_shards: bool) -> Iterator[None]:
    """Fills an array from a checkpoint, and yields after each chunk of rows.

    Args:
      shards: the array to fill.
      stored: the array in the checkpoint.
      has_same_shards: whether both arrays have the same number of shards; each shard is then copied, which is faster.
    """
    size = chunk_rows(shards.dim)
    if not has_same_shards:
        for start in range(0, shards.rows, size):
            shards.assign(start, stored[start : start + size])
            yield
        return
    for replica, shard in shards.shards.items():
        for first in range(0, shard.shape[0], size):
            shards.assign_owned(replica, first, stored.read_shard(replica, first, min(first + size, shard.shape[0])))
            yield


def last_step(workdir: str, replicas: Replicas | None = None, on_file: Callable[[], None] = lambda: None) -> int | None:
    """Returns the step of the last intact checkpoint, or None if there is none.

    Verifies checksums, and skips damaged checkpoints with a warning.

    Args:
      workdir: directory of the run.
      replicas: the replicas of the run, if all its workers make this call together. None: this process works alone.
      on_file: called after each verified file.
    """
    return _first_intact(workdir, list(reversed(_list_steps(workdir))), replicas, on_file)


def saved_step(workdir: str) -> int:
    """Returns the step of the last complete checkpoint, or 0; does not verify checksums."""
    return max(_list_steps(workdir, has_state=True), default=0)


def _first_intact(
    workdir: str, steps: Sequence[int], replicas: Replicas | None, on_file: Callable[[], None] = lambda: None
) -> int | None:
    """Returns the first of the chief's `steps` with an intact checkpoint, or None; see `last_step`."""
    worker, workers = (replicas.worker, replicas.workers) if replicas is not None else (0, 1)
    count = int(_broadcast_from_chief(np.array(len(steps)), replicas))
    own = np.zeros(count, np.int64)
    own[: len(steps)] = steps[:count]
    for step in _broadcast_from_chief(own, replicas).tolist():
        folder = RunLayout(workdir).checkpoint(step)
        problem = _find_problem(folder, worker, workers, on_file)
        is_bad = problem is not None
        if not (is_bad if replicas is None else replicas.any_worker(is_bad)):
            return int(step)
        log.warning("skipping checkpoint %s: %s", folder, problem or "another worker found it damaged")
    return None


def _broadcast_from_chief(value: np.ndarray, replicas: Replicas | None) -> np.ndarray:
    """Returns the chief's array on all workers; `value` must have the same shape on all of them."""
    if replicas is None:
        return value
    return replicas.sum_over_workers(value if replicas.is_chief else np.zeros_like(value))


def table_shapes(workdir: str) -> dict[str, tuple[int, int]]:
    """Returns the shape [rows, D] of each table in the latest complete checkpoint; empty if there is none."""
    steps = _list_steps(workdir, has_state=True)
    arrays = _read_state(RunLayout(workdir).checkpoint(steps[-1])).arrays if steps else {}
    return {name.removesuffix(".values"): shape for name, shape in arrays.items() if name.endswith(".values")}


def best_step(workdir: str) -> int | None:
    """Returns the step of the existing checkpoint with the best validation metric; None if there is none."""
    return next(iter(_best_first(workdir)), None)


def _best_first(workdir: str) -> list[int]:
    """Returns the steps of all existing validated checkpoints, best first; ties go to the earlier step."""
    validations = read_validations(workdir)
    kept = set(_list_steps(workdir, has_state=True))
    sign = -1 if validations.is_higher_better else 1
    ranked = sorted((sign * value, step) for step, value in validations.values.items() if step in kept)
    return [step for _, step in ranked]


def read_validations(workdir: str) -> Validations:
    """Reads validations.json; without the file, `values` is empty. Raises ValueError if the file is damaged."""
    path = join(RunLayout(workdir).checkpoints, _VALIDATIONS)
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        return Validations(metric="", is_higher_better=False, values={})
    with explain_damage(
        path, "remove it to continue without earlier validation metrics; the last checkpoint is then the best"
    ):
        fields = json.loads(content)
        values = {int(step): float(value) for step, value in fields["values"].items()}
        if not all(map(math.isfinite, values.values())):
            raise ValueError("a metric is not finite")
        return Validations(**{**fields, "values": values})


def record_validation(workdir: str, step: int, value: float, *, metric: str, is_higher_better: bool) -> None:
    """Adds a validation metric to validations.json, and drops the metrics of later steps.

    Args:
      workdir: directory of the run.
      step: step of the validated checkpoint.
      value: value of the metric.
      metric: name of the metric.
      is_higher_better: whether a higher value is better.
    """
    earlier = {other: old for other, old in read_validations(workdir).values.items() if other < step}
    validations = Validations(metric=metric, is_higher_better=is_higher_better, values=earlier | {step: value})
    storage.write_bytes(join(RunLayout(workdir).checkpoints, _VALIDATIONS), encode_json(asdict(validations)))


def keep_best_and_last(workdir: str) -> None:
    """Removes all checkpoints except the best one and the last two."""
    best = best_step(workdir)
    kept = {*_list_steps(workdir, has_state=True)[-2:], *([] if best is None else [best])}
    names = {os.path.basename(RunLayout(workdir).checkpoint(step)) for step in kept} | {_VALIDATIONS}
    folder = RunLayout(workdir).checkpoints
    for name in sorted({name.split("/")[0] for name in storage.list_files(folder)} - names):
        storage.remove(join(folder, name))


def read_weights(workdir: str, which: Literal["best", "last"] = "best") -> Weights:
    """Opens the weights of a run's best or last intact checkpoint."""
    return read_weights_of_step(workdir, choose_step(workdir, which))


def weights_checksum(workdir: str, step: int) -> str:
    """Returns the SHA-256 of state.json, which contains the checksums of the checkpoint's other files."""
    return storage.sha256(join(RunLayout(workdir).checkpoint(step), STATE))


def choose_step(workdir: str, which: Literal["best", "last"] = "best", replicas: Replicas | None = None) -> int:
    """Returns the step of the best or the last intact checkpoint; see `last_step`.

    Args:
      workdir: directory of the run.
      which: `best` or `last`. If no checkpoint is validated, `best` is the last one, too.
      replicas: the replicas of the run, if all its workers make this call together. None: this process works alone.

    Raises:
      ValueError: there is no intact checkpoint.
    """
    best = _best_first(workdir) if which == "best" else []
    others = [step for step in reversed(_list_steps(workdir)) if step not in best]
    step = _first_intact(workdir, best + others, replicas)
    if step is None:
        raise ValueError(f"{workdir} has no intact checkpoint; run its `train` command again to write one")
    return step


def read_weights_of_step(workdir: str, step: int) -> Weights:
    """Opens the weights of an intact checkpoint. The rows of its tables are read later, slice by slice."""
    state = read_state(workdir, step)
    names = {name: name.rpartition(".") for name in state.arrays}
    tables = {table: read_array(workdir, state, name) for name, (table, _, kind) in names.items() if kind == "values"}
    return Weights(tables, read_dense_weights(workdir, step))


def read_state(workdir: str, step: int) -> CheckpointMetadata:
    """Reads state.json of a checkpoint."""
    return _read_state(RunLayout(workdir).checkpoint(step))


def read_array(workdir: str, state: CheckpointMetadata, name: str) -> StoredTable:
    """Opens an array of a checkpoint by its name in `state.arrays`; its rows are read later, slice by slice."""
    return StoredTable(RunLayout(workdir).checkpoint(state.step), state, name)


def read_dense_weights(workdir: str, step: int) -> list[np.ndarray]:
    """Reads the dense weights of a checkpoint, in the model's order."""
    saved = _read_dense(RunLayout(workdir).checkpoint(step))
    return [saved[f"weight_{number}"] for number in range(sum("weight" in key for key in saved))]


def _list_steps(workdir: str, *, has_state: bool = False) -> list[int]:
    """Returns the steps of the checkpoints, ascending; with `has_state`, only of complete checkpoints."""
    names = [name.split("/") for name in storage.list_files(RunLayout(workdir).checkpoints)]
    found = {checkpoint_step(name[0]) for name in names if not has_state or name[1:] == [STATE]}
    return sorted(step for step in found if step is not None)


def _find_problem(folder: str, worker: int, workers: int, on_file: Callable[[], None]) -> str | None:
    """Verifies the checksums of this worker's share of a checkpoint's files; returns the first problem, or None."""
    try:
        files = sorted(_read_state(folder).files.items())
        for name, expected in files[worker::workers]:
            if not storage.is_intact(join(folder, name), expected):
                return f"the checksum of {name} is wrong"
            on_file()
    except FileNotFoundError as error:
        return f"{os.path.basename(error.filename or str(error))} is missing"
    except IsADirectoryError as error:
        return f"{os.path.basename(error.filename or str(error))} is a directory"
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{STATE} is damaged ({error})"
    return None


def _read_state(folder: str) -> CheckpointMetadata:
    values = decode_sealed(storage.read_bytes(join(folder, STATE)))
    metadata = CheckpointMetadata(
        **{**values, "arrays": {name: tuple(shape) for name, shape in values["arrays"].items()}}
    )
    _check_metadata(metadata, checkpoint_step(os.path.basename(folder)))
    return metadata


def _check_metadata(metadata: CheckpointMetadata, step: int | None) -> None:
    """Raises ValueError if state.json has an invalid value, for example from another program."""
    for key, least in (("step", 0), ("epoch", 0), ("step_in_epoch", 0), ("replicas", 1)):
        value = getattr(metadata, key)
        if type(value) is not int or value < least:
            raise ValueError(f"{key} must be a whole number of at least {least}, got {value}")
    if metadata.step != step:
        raise ValueError(f"it describes step {metadata.step}")
    for name, shape in metadata.arrays.items():
        if len(shape) != 2 or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"the shape of {name} must be [rows, columns], got {shape}")
    count = metadata.replicas
    has_right_number = len(metadata.files) == 1 + count * len(metadata.arrays)
    shards = (shard_name(name, replica, count, ".npy") for name in metadata.arrays for replica in range(count))
    if not (has_right_number and all(name in metadata.files for name in (DENSE, *shards))):
        raise ValueError("its files do not match the arrays that it lists")


def _read_dense(folder: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(storage.read_bytes(join(folder, DENSE)))) as saved:
        return dict(saved)
