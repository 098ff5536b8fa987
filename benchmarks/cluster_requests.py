"""Counts and draws the ids that the replicas look up in a training step of `mf` and `nn`.

Shapes: R replicas.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.models import MatrixFactorizationConfig, TowersConfig
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.distributed.all_to_all import CAPACITIES

ROWS = 8_192
"""Batch rows per replica."""
ITEMS, FEATURES = 1_000_000, 20_000
"""Rows of the item table and of the feature table."""
FEATURES_PER_ITEM = 8
"""Number of features per item. The features of an item are its categories, price and properties."""
GPUS_PER_HOST = 8


def make_config(preset: str, replicas: int, rows: int = ROWS) -> RunConfig:
    """Returns the config of a preset, with a batch size of `rows` per replica."""
    config = PRESETS[preset]
    return replace(config, input=replace(config.input, batch_size=rows * replicas))


def table_columns(config: RunConfig) -> int:
    """Returns the number of columns of an embedding table: those of the vector, and one for the bias."""
    assert isinstance(config.model, MatrixFactorizationConfig | TowersConfig)
    return config.model.dim + 1


class IdCounts(NamedTuple):
    """Numbers of ids that a replica looks up in a table per step."""

    rows: int
    """Rows of the table."""
    own: int
    """Ids of the replica's batch rows: their histories, and their positives unless the positives are candidates."""
    shared: int
    """Ids that every replica looks up: in-batch and sampled candidates."""


def count_ids(config: RunConfig, replicas: int) -> dict[str, IdCounts]:
    """Counts, for each table, the ids that a replica looks up per training step."""
    assert isinstance(config.loss, SampledSoftmaxConfig)
    batch, most = config.input.batch_size, config.loss.max_in_batch_negatives
    own = batch // replicas * (config.history_length + (batch > most))
    shared = min(batch, most) + config.loss.num_negatives
    items = {"item": IdCounts(ITEMS, own, shared)}
    if isinstance(config.model, MatrixFactorizationConfig):
        return items
    return {**items, "feature": IdCounts(FEATURES, own * FEATURES_PER_ITEM, shared * FEATURES_PER_ITEM)}


def draw_ids(counts: IdCounts, replicas: int) -> Iterator[np.ndarray]:
    """Yields the ids that each replica looks up, in one array per replica: `counts.own` ids, then the shared ids."""
    generator = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        return draw_popular(generator, count, counts.rows)

    shared = draw(counts.shared)
    for _ in range(replicas):
        yield np.concatenate([draw(counts.own), shared])


def draw_popular(generator: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """Draws ids [count] below `rows`. The most popular id has 0.13% of the draws, as in Retailrocket's log."""
    return np.minimum((generator.pareto(0.8, count) * 600).astype(np.int64), rows - 1)


def count_requests(counts: IdCounts, replicas: int) -> np.ndarray:
    """Returns counts [R, R]; entry [d, o] is the number of distinct rows that replica d requests from replica o."""
    requests = np.zeros((replicas, replicas), np.int64)
    for replica, ids in enumerate(draw_ids(counts, replicas)):
        is_used = np.zeros(counts.rows, bool)
        is_used[ids] = True
        requests[replica] = np.bincount(np.flatnonzero(is_used) % replicas, minlength=replicas)
    return requests


def capacity_of(requests: np.ndarray) -> int:
    """Returns the number of rows, with padding, in each message for one table. `requests`: see `count_requests`."""
    return int(CAPACITIES[np.searchsorted(CAPACITIES, requests.max())])
