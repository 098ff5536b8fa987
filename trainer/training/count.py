"""Counts the tables of the item walk; an epoch is one combination of powers, and validation chooses among them.

Each replica computes the rows that it owns, from all timelines; the numbers are the same for any number of replicas.

Shapes: R replicas, T timelines, I items.
"""

import logging

import numpy as np

from trainer.config.models import WalkConfig
from trainer.config.run import RunConfig
from trainer.data.baskets import training_baskets
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.models.build import build_tables
from trainer.models.walk import make_dense_variables, walk_rows
from trainer.runs.checkpoint import TrainState

log = logging.getLogger(__name__)


class CountTrainer:
    """Computes the tables of a walk; a step is one combination of powers, whatever the steps before it were."""

    def __init__(self, config: RunConfig, dataset: Dataset, replicas: Replicas) -> None:
        """Builds the tables with zeros and reads the training timelines.

        Raises:
          ValueError: the model is not a walk, or no training event has a weight above 0.
        """
        if not isinstance(config.model, WalkConfig):
            raise ValueError(f"solver=count needs the model walk, got {config.model.kind}; use the preset walk")
        self._model, self._replicas = config.model, replicas
        self._baskets = training_baskets(dataset, config.loss.weights_by_kind(dataset.manifest), config.model.max_items)
        with replicas.strategy.scope():
            dense = make_dense_variables()
        self.state = TrainState(build_tables(config, dataset, replicas), dense, [])

    def advance(self, first: int, count: int) -> np.ndarray:
        """Computes combinations from `first` on; returns the share of each one's weight that its tables lack."""
        return np.array([self._fill(combination) for combination in range(first, first + count)], np.float32)

    def describe_input(self, step: int) -> str:
        """Names the combination of powers."""
        return f"the powers are {self._model.combinations[step]}"

    @property
    def remedy(self) -> str:
        """The settings to change against weights that are not finite."""
        return "use powers closer to 0"

    def _fill(self, combination: int) -> float:
        powers = self._model.combinations[combination]
        log.info("combination %d of %d: %s", combination + 1, len(self._model.combinations), powers)
        sums = np.zeros(2)
        for replica in self._replicas.local:
            sums += self._fill_shard(replica, combination)
        self.state.dense[0].assign(np.array(powers, np.float32))
        kept, total = self._replicas.sum_over_workers(sums)
        return max(1 - kept / total, 0.0)

    def _fill_shard(self, replica: int, combination: int) -> np.ndarray:
        """Sets the rows of a replica; returns [2]: the sum of their weights, and with all that were dropped."""
        items = np.arange(replica, self._baskets.shape[1], self._replicas.count)
        sums, first = np.zeros(2), 0
        for rows in walk_rows(self._baskets, self._model.combinations[combination], self._model.num_neighbours, items):
            self.state.tables["neighbour"].values.assign_owned(replica, first, rows.neighbour)
            self.state.tables["weight"].values.assign_owned(replica, first, rows.weight)
            sums += rows.weight.sum(dtype=np.float64), rows.total_weight
            first += len(rows.weight)
        return sums
