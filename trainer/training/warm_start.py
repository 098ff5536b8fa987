"""Warm start: initialises a run with the vectors of an earlier run, matched by id.

A row is carried over, with its vector, if the earlier run has a row with the same id. A new item starts from the
mean of the carried items in its category or, if there are none, in the nearest parent category with carried items. All
other new rows are initialised randomly. Optimizer slots are carried over too, because the large first steps of a fresh
optimizer would undo the warm start.

Shapes: N rows of a table, D columns, M new items that start from a category mean.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import storage
from common.errors import ContractError
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.embeddings import RowShards, ShardedTable, chunk_rows, initialize
from trainer.models.build import table_rows
from trainer.models.table_rows import is_of_vocabulary
from trainer.runs import checkpoint
from trainer.runs.checkpoint import CheckpointMetadata, StoredTable, TrainState
from trainer.runs.layout import RunLayout
from trainer.runs.record import RunRecord, read_record, training_view

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _EarlierRun:
    """The run that supplies the initial vectors."""

    workdir: str
    """Directory of the run."""
    record: RunRecord
    """Record of the run."""
    checkpoint: CheckpointMetadata
    """Best checkpoint of the run."""

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Numbers of rows and columns of each table, by table name."""
        suffix = ".values"
        return {
            name.removesuffix(suffix): shape for name, shape in self.checkpoint.arrays.items() if name.endswith(suffix)
        }

    def ids(self) -> dict[str, list[str]]:
        """Reads the row ids of each table, by table name."""
        return row_ids(self.record.config, self._open_dataset())

    def open(self, array: str) -> AbstractContextManager[StoredTable]:
        """Opens an array [N, D] of the checkpoint, such as `item.values`; each of its files is fetched only once."""
        return checkpoint.read_array(self.workdir, self.checkpoint, array).kept_open()

    def _open_dataset(self) -> Dataset:
        reason = f"--warm-start {self.workdir} needs the dataset of that run for the ids of its vectors"
        try:
            dataset = open_dataset(self.record.data)
        except ContractError as error:
            raise ContractError(
                f"{reason}, but the dataset cannot be read ({error}); restore it, or remove --warm-start"
            ) from error
        if dataset.checksum != self.record.dataset_checksum:
            raise ContractError(
                f"{reason}, but {self.record.data} contains a different dataset now; restore the original dataset "
                "there, or remove --warm-start"
            )
        return training_view(self.record, dataset)


def warm_start_from(workdir: str, config: RunConfig, dataset: Dataset, state: TrainState) -> dict[str, Any]:
    """Initialises tables and dense weights from the best checkpoint of the run at `workdir`.

    Args:
      workdir: directory of the earlier run.
      config: settings of the new run.
      dataset: dataset of the new run.
      state: weights to initialise.

    Returns:
      JSON values: `run` (directory of the earlier run), `step` (of its checkpoint) and `tables`, which has these
      numbers of rows for each table: `carried` (copied), `from_category` (started from a category mean), `new`
      (random), `rows` (the sum of these), and `dropped` (rows of the earlier table that were not copied).

    Raises:
      ContractError: the dataset of the earlier run is no longer at its original path.
      ValueError: there is no run at `workdir`, or its model differs from the new model in kind or in the shapes of the
        weights, or `workdir` is a run of `--preset auto`.
    """
    if storage.exists(RunLayout(workdir).auto):
        raise ValueError(
            f"{workdir} is a run of --preset auto, which consists of a run for each model; give --warm-start one of "
            f"these, such as {RunLayout(workdir).part('mf')}"
        )
    step = checkpoint.choose_step(workdir)
    earlier = _EarlierRun(workdir, read_record(workdir), checkpoint.read_state(workdir, step))
    dense = checkpoint.read_dense_weights(workdir, step)
    _check_compatible(earlier, config, state, [value.shape for value in dense])
    old_ids = earlier.ids()
    new_ids = row_ids(config, dataset)
    carried = {}
    for name, table in state.tables.items():
        old_index = {row_id: index for index, row_id in enumerate(old_ids[name])}
        old_rows = np.array([old_index.get(row_id, -1) for row_id in new_ids[name]], np.int64)
        num_items = sum(map(is_of_vocabulary, new_ids[name])) if name == "item" else 0
        num_from_category = _carry_table(table, name, old_rows, earlier, config, dataset, num_items)
        num_carried = int(np.count_nonzero(old_rows >= 0))
        carried[name] = {
            "rows": len(old_rows),
            "carried": num_carried,
            "from_category": num_from_category,
            "new": len(old_rows) - num_carried - num_from_category,
            "dropped": len(old_ids[name]) - num_carried,
        }
        log.info("warm start of table %s: %s", name, ", ".join(f"{n} {label}" for label, n in carried[name].items()))
    for variable, value in zip(state.dense, dense, strict=True):
        variable.assign(value)
    return {"run": workdir, "step": step, "tables": carried}


def row_ids(config: RunConfig, dataset: Dataset) -> dict[str, list[str]]:
    """Returns the row ids of each table, by table name."""
    return {name: rows.ids() for name, rows in table_rows(config, dataset).items()}


def category_means(dataset: Dataset, is_carried: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes initial vectors of new items: the mean vector of the carried items in the same category.

    If the category has no carried items, its nearest parent category with carried items is used.

    Args:
      dataset: dataset of the new run.
      is_carried: [N] bool: whether each of the first N items is carried over from the earlier run; the others are new.
      vectors: [N, D] vectors of the first N items; the vectors of new items are ignored.

    Returns:
      [M] indices of the new items that get a mean, ascending, and [M, D] these means.
    """
    paths = dataset.catalogue["category_path"].to_pylist()[: len(is_carried)]
    lengths = np.array([len(path) for path in paths], np.int64)
    owner, category = np.repeat(np.arange(len(paths)), lengths), np.array([c for path in paths for c in path], np.int64)
    from_carried = is_carried[owner]
    num_categories = int(category.max(initial=-1)) + 1
    counts = np.bincount(category[from_carried], minlength=num_categories)
    sums = np.zeros((num_categories, vectors.shape[1]))
    np.add.at(sums, category[from_carried], vectors[owner[from_carried]])
    items, means = [], []
    for item in np.flatnonzero(~is_carried):
        known = [name for name in paths[item] if counts[name]]
        if known:  # paths start at the root, so the last category is the nearest
            items.append(item)
            means.append(sums[known[-1]] / counts[known[-1]])
    return np.array(items, np.int64), np.array(means, np.float32).reshape(-1, vectors.shape[1])


def _check_compatible(
    earlier: _EarlierRun, config: RunConfig, state: TrainState, dense: Sequence[tuple[int, ...]]
) -> None:
    widths = {name: dim for name, (_, dim) in earlier.shapes.items()}
    expected = {name: table.dim for name, table in state.tables.items()}
    kind = earlier.record.config.model.kind
    if kind != config.model.kind or widths != expected:
        raise ValueError(
            f"--warm-start {earlier.workdir} is a `{kind}` model with table widths {widths}, but this run trains "
            f"`{config.model.kind}` with {expected}; use the same model and settings, or drop --warm-start"
        )
    expected_dense = [tuple(variable.shape) for variable in state.dense]
    if list(dense) != expected_dense:
        raise ValueError(
            f"--warm-start {earlier.workdir}: dense weights have shapes {list(dense)}, but this model expects "
            f"{expected_dense}; use the same `model.*` settings, or drop --warm-start"
        )


def _carry_table(
    table: ShardedTable,
    name: str,
    old_rows: np.ndarray,
    earlier: _EarlierRun,
    config: RunConfig,
    dataset: Dataset,
    num_items: int,
) -> int:
    """Initialises a table and its optimizer slots; returns how many rows start from the mean vector of their category.

    Args:
      table: table to initialise.
      name: name of the table.
      old_rows: [N] int64: for each row, the index of the row with the same id in the earlier run's table, or -1.
      earlier: the earlier run.
      config: settings of the new run.
      dataset: dataset of the new run.
      num_items: number of leading rows that belong to items of the vocabulary; 0 for all tables except `item`.
    """
    of_items = old_rows[:num_items]
    with earlier.open(f"{name}.values") as old:
        mean_rows, means = category_means(dataset, of_items >= 0, old.gather(np.maximum(of_items, 0)))

        def overlay(rows: np.ndarray, values: np.ndarray) -> None:
            sources = old_rows[rows]
            values[sources >= 0] = old.gather(sources[sources >= 0])
            if len(mean_rows):  # `np.isin` would sort or scan all of `mean_rows` for each chunk
                positions = np.minimum(np.searchsorted(mean_rows, rows), len(mean_rows) - 1)
                has_mean = mean_rows[positions] == rows
                values[has_mean] = means[positions[has_mean]]

        initialize(
            table,
            name=name,
            seed=config.seed,
            stddev=config.model.initial_stddev,
            overlay=overlay,
            on_progress=dataset.on_progress,
        )
    for slot, shards in table.slots.items():
        if f"{name}.{slot}" in earlier.checkpoint.arrays:
            with earlier.open(f"{name}.{slot}") as old_slot:
                _carry_slot(shards, old_rows, old_slot)
    return len(mean_rows)


def _carry_slot(shards: RowShards, old_rows: np.ndarray, old: StoredTable) -> None:
    """Fills an optimizer slot from rows `old_rows` of an earlier run's slot; row -1 stands for the initial value."""
    size = chunk_rows(shards.dim)
    for start in range(0, len(old_rows), size):
        sources = old_rows[start : start + size]
        rows = np.full((len(sources), shards.dim), shards.fill, np.float32)
        rows[sources >= 0] = old.gather(sources[sources >= 0])
        shards.assign(start, rows)
