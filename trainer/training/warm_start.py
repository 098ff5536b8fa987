"""A run that begins with another run's vectors: carried over by id into today's vocabularies.

A new item starts from the mean of the carried items of its category, or of the nearest category above that has some;
other new rows start as in any run. A row's optimizer slots come with it, or the first steps would undo it.

Shapes: N rows of a table, D columns, M new items with a mean.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import ContractError
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.embeddings import CHUNK_ROWS, RowShards, ShardedTable, initialize
from trainer.models.build import table_rows
from trainer.models.table_rows import is_of_vocabulary
from trainer.runs import checkpoint
from trainer.runs.checkpoint import CheckpointMetadata, TrainState
from trainer.runs.record import RunRecord, read_record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Earlier:
    """The run whose vectors are carried over, and its best checkpoint."""

    run: str
    record: RunRecord
    state: CheckpointMetadata

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each table."""
        is_table = ".values"
        return {
            name.removesuffix(is_table): shape for name, shape in self.state.arrays.items() if name.endswith(is_table)
        }

    def ids(self) -> dict[str, list[str]]:
        """Whose each row of each table is."""
        return row_ids(self.record.config, self._dataset())

    def read(self, array: str) -> np.ndarray:
        """A whole array [N, D] of the checkpoint."""
        return np.asarray(checkpoint.read_array(self.run, self.state, array))

    def _dataset(self) -> Dataset:
        needs = f"--warm-start {self.run} needs its dataset, whose vocabularies name the rows"
        try:
            dataset = open_dataset(self.record.data)
        except ContractError as error:
            raise ContractError(f"{needs}: {error}") from error
        if dataset.checksum != self.record.dataset_checksum:
            raise ContractError(
                f"{needs}, but {self.record.data} holds another by now: prepare each into a directory of its own"
            )
        return dataset


def warm_start_from(run: str, config: RunConfig, dataset: Dataset, parts: TrainState) -> dict[str, Any]:
    """Fills tables and dense weights from the best checkpoint of the run at `run`.

    Returns:
      What was carried, as JSON values: `run`, its `step`, and of each of the `tables` its `rows`: those `carried`,
      those that start `from_category` means, those `new`; and how many of the earlier table were `dropped`.

    Raises:
      ContractError: the run's dataset no longer lies where it lay.
      ValueError: there is no such run, or its model is of another kind or width.
    """
    earlier = _Earlier(run, read_record(run), checkpoint.read_state(run, checkpoint.choose_step(run)))
    dense = checkpoint.read_dense_weights(run, earlier.state.step)
    _check_fits(earlier, config, parts, [value.shape for value in dense])
    old_ids = earlier.ids()
    new_ids = row_ids(config, dataset)
    carried = {}
    for name, table in parts.tables.items():
        place_of = {row_id: place for place, row_id in enumerate(old_ids[name])}
        place = np.array([place_of.get(row_id, -1) for row_id in new_ids[name]], np.int64)
        num_items = sum(map(is_of_vocabulary, new_ids[name])) if name == "item" else 0
        num_from_category = _carry_table(table, name, place, earlier, config, dataset, num_items)
        num_carried = int(np.count_nonzero(place >= 0))
        carried[name] = {
            "rows": len(place),
            "carried": num_carried,
            "from_category": num_from_category,
            "new": len(place) - num_carried - num_from_category,
            "dropped": len(old_ids[name]) - num_carried,
        }
        log.info("warm start of %s: %s", name, ", ".join(f"{count} {what}" for what, count in carried[name].items()))
    for variable, value in zip(parts.dense, dense, strict=True):
        variable.assign(value)
    return {"run": run, "step": earlier.state.step, "tables": carried}


def row_ids(config: RunConfig, dataset: Dataset) -> dict[str, list[str]]:
    """Whose each row of each table is."""
    return {name: rows.ids() for name, rows in table_rows(config, dataset).items()}


def category_means(dataset: Dataset, is_carried: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [M] and vectors [M, D] of the new items in whose category, or one above it, there are carried ones.

    Args:
      is_carried: [N] of the first N items of the vocabulary.
      vectors: [N, D] of these; any for those that are new.
    """
    paths = dataset.catalogue["category_path"].to_pylist()[: len(is_carried)]
    lengths = np.array([len(path) for path in paths], np.int64)
    owner, category = np.repeat(np.arange(len(paths)), lengths), np.array([c for path in paths for c in path], np.int64)
    counted = is_carried[owner]
    num_categories = int(category.max(initial=-1)) + 1
    counts = np.bincount(category[counted], minlength=num_categories)
    sums = np.zeros((num_categories, vectors.shape[1]))
    np.add.at(sums, category[counted], vectors[owner[counted]])
    places, means = [], []
    for item in np.flatnonzero(~is_carried):
        known = [name for name in paths[item] if counts[name]]
        if known:  # a path goes from the root down: the last is the nearest
            places.append(item)
            means.append(sums[known[-1]] / counts[known[-1]])
    return np.array(places, np.int64), np.array(means, np.float32).reshape(-1, vectors.shape[1])


def _check_fits(earlier: _Earlier, config: RunConfig, parts: TrainState, dense: Sequence[tuple[int, ...]]) -> None:
    widths = {name: dim for name, (_, dim) in earlier.shapes.items()}
    expected = {name: table.dim for name, table in parts.tables.items()}
    kind = earlier.record.config.model.kind
    if kind != config.model.kind or widths != expected:
        raise ValueError(
            f"--warm-start {earlier.run}: its model is {kind} with tables of columns {widths}, this one is "
            f"{config.model.kind} with {expected}; train the same model, or without --warm-start"
        )
    wanted = [tuple(variable.shape) for variable in parts.dense]
    if list(dense) != wanted:
        raise ValueError(
            f"--warm-start {earlier.run}: its dense weights have the shapes {list(dense)}, those of this model "
            f"{wanted}; train with the same settings below model., or without --warm-start"
        )


def _carry_table(
    table: ShardedTable,
    name: str,
    place: np.ndarray,
    earlier: _Earlier,
    config: RunConfig,
    dataset: Dataset,
    num_items: int,
) -> int:
    """Fills a table and its slots; how many rows start from a category's mean.

    Args:
      place: [N] row of the earlier table that each row was, -1: none.
      num_items: rows, the first ones, that are items of the vocabulary.
    """
    old = earlier.read(f"{name}.values")
    mean_places, means = category_means(dataset, place[:num_items] >= 0, old[place[:num_items]])

    def overlay(start: int, rows: np.ndarray) -> None:
        own = place[start : start + len(rows)]
        rows[own >= 0] = old[own[own >= 0]]
        begin, end = np.searchsorted(mean_places, [start, start + len(rows)])
        rows[mean_places[begin:end] - start] = means[begin:end]

    initialize(table, name=name, seed=config.seed, stddev=config.model.initial_stddev, overlay=overlay)
    for slot, shards in table.slots.items():
        if f"{name}.{slot}" in earlier.state.arrays:
            _carry_slot(shards, place, earlier.read(f"{name}.{slot}"))
    return len(mean_places)


def _carry_slot(shards: RowShards, place: np.ndarray, old: np.ndarray) -> None:
    """Sets the rows that the earlier run knew; the others keep what the optimizer starts them with."""
    for start in range(0, len(place), CHUNK_ROWS):
        own = place[start : start + CHUNK_ROWS]
        rows = np.full((len(own), shards.dim), shards.fill, np.float32)
        rows[own >= 0] = old[own[own >= 0]]
        shards.assign(start, rows)
