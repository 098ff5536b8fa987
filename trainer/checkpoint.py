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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import BinaryIO, Literal

import keras
import numpy as np

from contract import storage
from contract.layout import RunLayout, checkpoint_step, join, shard_name
from trainer.distribution import rows_owned
from trainer.embeddings import CHUNK_ROWS, RowShards, ShardedTable

log = logging.getLogger(__name__)

STATE, DENSE, _VALIDATIONS = "state.json", "dense.npz", "validations.json"


@dataclass(frozen=True, kw_only=True)
class State:
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


@dataclass(frozen=True)
class Weights:
    """A trained model's weights.

    tables   [rows, D] float32 each, rows in natural order
    dense    in the model's own order
    """

    tables: dict[str, np.ndarray]
    dense: list[np.ndarray]


@dataclass(frozen=True)
class Parts:
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


def restore(workdir: str, parts: Parts, step: int) -> None:
    """Fills tables and dense weights with the checkpoint of `step`; each process reads the rows it owns.

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
        for start, values in _read_rows(folder, name, state):
            shards.assign(start, values)
    saved = _read_dense(folder)
    for prefix, variables in (("weight", parts.dense), ("optimizer", parts.optimizer)):
        for number, variable in enumerate(variables):
            variable.assign(saved[f"{prefix}_{number}"])


def last_step(workdir: str) -> int | None:
    """The step of the last checkpoint that is whole, None if there is none; torn ones are skipped with a warning."""
    for step in reversed(_list_steps(workdir)):
        folder = RunLayout(workdir).checkpoint(step)
        problem = _find_problem(folder)
        if problem is None:
            return step
        log.warning("checkpoint %s is skipped: %s", folder, problem)
    return None


def table_shapes(workdir: str) -> dict[str, tuple[int, int]]:
    """[rows, D] of each table, as the latest checkpoint has them; empty without one."""
    for step in reversed(_list_steps(workdir)):
        try:
            arrays = _read_state(RunLayout(workdir).checkpoint(step)).arrays
        except FileNotFoundError:
            continue  # torn
        return {name.removesuffix(".values"): shape for name, shape in arrays.items() if name.endswith(".values")}
    return {}


def best_step(workdir: str) -> int | None:
    """The step that did best on the validation split, of those kept; the first of equals; None if none was measured."""
    validations = read_validations(workdir)
    kept = set(_list_steps(workdir))
    sign = -1 if validations.is_higher_better else 1
    ranked = sorted((sign * value, step) for step, value in validations.values.items() if step in kept)
    return ranked[0][1] if ranked else None


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
    kept = {*_list_steps(workdir)[-2:], *([] if best is None else [best])}
    names = {os.path.basename(RunLayout(workdir).checkpoint(step)) for step in kept} | {_VALIDATIONS}
    folder = RunLayout(workdir).checkpoints
    for name in sorted({name.split("/")[0] for name in storage.list_files(folder)} - names):
        storage.remove(join(folder, name))


def read_weights(workdir: str, which: Literal["best", "last"] = "best") -> Weights:
    """Whole tables and dense weights of a run's checkpoint.

    Args:
      which: the best on the validation split, or the last; a run that was never measured has its last as its best.

    Raises:
      ValueError: there is no checkpoint, or it is torn or damaged.
    """
    return read_weights_of_step(workdir, choose_step(workdir, which))


def weights_checksum(workdir: str, which: Literal["best", "last"] = "best") -> str:
    """SHA-256 that stands for all that `read_weights` reads: of the state that holds the checksum of every file.

    Raises:
      ValueError: there is no checkpoint.
    """
    return storage.sha256(join(RunLayout(workdir).checkpoint(choose_step(workdir, which)), STATE))


def choose_step(workdir: str, which: Literal["best", "last"] = "best") -> int:
    """The step of a run's checkpoint that `read_weights` reads.

    Raises:
      ValueError: there is no checkpoint.
    """
    step = best_step(workdir) if which == "best" else None
    step = last_step(workdir) if step is None else step
    if step is None:
        raise ValueError(f"{workdir} holds no checkpoint that is whole; train the run first")
    return step


def read_weights_of_step(workdir: str, step: int) -> Weights:
    """Whole tables and dense weights of the checkpoint of `step`.

    Raises:
      ValueError: the checkpoint is torn or damaged.
    """
    state = read_state(workdir, step)
    kinds = {name: name.rpartition(".") for name in state.arrays}
    tables = {table: read_array(workdir, state, name) for name, (table, _, kind) in kinds.items() if kind == "values"}
    return Weights(tables, read_dense_weights(workdir, step))


def read_state(workdir: str, step: int) -> State:
    """What the checkpoint of `step` holds, all of it verified.

    Raises:
      ValueError: the checkpoint is torn or damaged.
    """
    folder = RunLayout(workdir).checkpoint(step)
    problem = _find_problem(folder)
    if problem is not None:
        raise ValueError(f"checkpoint {folder} cannot be read: {problem}; train the run again")
    return _read_state(folder)


def read_array(workdir: str, state: State, name: str) -> np.ndarray:
    """A whole array [rows, D] of a verified checkpoint, rows in natural order."""
    array = np.empty(state.arrays[name], np.float32)
    for start, values in _read_rows(RunLayout(workdir).checkpoint(state.step), name, state):
        array[start : start + len(values)] = values
    return array


def read_dense_weights(workdir: str, step: int) -> list[np.ndarray]:
    """The dense weights of a verified checkpoint, in the model's own order."""
    saved = _read_dense(RunLayout(workdir).checkpoint(step))
    return [saved[f"weight_{number}"] for number in range(sum("weight" in key for key in saved))]


def _list_steps(workdir: str) -> list[int]:
    names = {name.split("/")[0] for name in storage.list_files(RunLayout(workdir).checkpoints)}
    return sorted(step for name in names if (step := checkpoint_step(name)) is not None)


def _find_problem(folder: str) -> str | None:
    """Why a checkpoint cannot be used, None if it can."""
    try:
        state = _read_state(folder)
        for name, expected in state.files.items():
            if not storage.is_intact(join(folder, name), expected):
                return f"{name} differs from what was written"
    except FileNotFoundError as error:
        return f"{os.path.basename(error.filename or str(error))} is missing"
    except (KeyError, TypeError, ValueError) as error:
        return f"{STATE} is damaged ({error})"
    return None


def _read_state(folder: str) -> State:
    values = json.loads(storage.read_bytes(join(folder, STATE)))
    return State(**{**values, "arrays": {name: tuple(shape) for name, shape in values["arrays"].items()}})


def _read_rows(folder: str, name: str, state: State) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of an array in natural order: (first row, rows [n, D])."""
    rows, dim = state.arrays[name]
    with ExitStack() as stack:
        names = [shard_name(name, replica, state.replicas, ".npy") for replica in range(state.replicas)]
        paths = [stack.enter_context(storage.local_copy(join(folder, file), state.files[file])) for file in names]
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        for file in files:
            _skip_header(file)
        for start in range(0, rows, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, rows)
            piece = np.empty((stop - start, dim), np.float32)
            for replica, file in enumerate(files):
                count = rows_owned(stop, replica, state.replicas) - rows_owned(start, replica, state.replicas)
                part = np.frombuffer(file.read(count * dim * 4), "<f4").reshape(count, dim)
                piece[(replica - start) % state.replicas :: state.replicas] = part
            yield start, piece


def _skip_header(file: BinaryIO) -> None:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)


def _read_dense(folder: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(storage.read_bytes(join(folder, DENSE)))) as saved:
        return dict(saved)
