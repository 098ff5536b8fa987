"""Solver `count`: computes the tables of a model by counting events.

Some settings of such a model, for example its exponents, have one value per epoch. Each epoch computes the tables with
the next combination of these values, and validation selects the best epoch. Each replica computes the table rows that
it owns, from all timelines; the rows are the same for any number of replicas.

Shapes: R replicas, T timelines, I items.
"""

import logging
from collections import Counter

import keras
import numpy as np

from trainer.config.run import RunConfig
from trainer.data.baskets import training_baskets
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.models.build import build_tables, counted_model_file
from trainer.runs.checkpoint import TrainState

log = logging.getLogger(__name__)


class CountTrainer:
    """Computes the tables of a model by counting events, without gradients.

    Training step i computes all tables, with the i-th of the model's `combinations` of settings.
    """

    def __init__(self, config: RunConfig, dataset: Dataset, replicas: Replicas) -> None:
        """Builds tables of zeros, and reads the training timelines.

        Raises:
          ValueError: `solver=count` cannot compute this model, or no training event has a weight above 0.
        """
        file, model = counted_model_file(config.model)
        self._combinations, self._replicas = model.combinations, replicas
        self._remedy, self._on_progress = model.remedy, dataset.on_progress
        weights = config.loss.weights_by_kind(dataset.manifest)
        self._count_rows = file.row_counter(model, training_baskets(dataset, weights, model.max_items))
        with replicas.strategy.scope():
            dense = [keras.Variable(np.zeros(len(self._combinations[0]), np.float32), name="powers")]
        self.state = TrainState(build_tables(config, dataset, replicas), dense, [])

    def advance(self, first: int, count: int) -> np.ndarray:
        """Runs `count` training steps, from step `first` on; returns their losses [count].

        Each step computes all tables again. Its loss is the share of the counts that are not stored; see `CountedRows`.
        """
        return np.array([self._fill(combination) for combination in range(first, first + count)], np.float32)

    def describe_input(self, step: int) -> str:
        """Returns a text with the combination of settings of training step `step`."""
        return f"this step computed the model with {self._combinations[step]}"

    @property
    def remedy(self) -> str:
        """Advice for a run with infinite or NaN weights: settings to change."""
        return self._remedy

    def _fill(self, combination: int) -> float:
        values = self._combinations[combination]
        log.info("computing the model with combination %d of %d: %s", combination + 1, len(self._combinations), values)
        sums = np.zeros(2)
        for replica in self._replicas.local:
            sums += self._fill_shard(replica, combination)
        self.state.dense[0].assign(np.array(values, np.float32))
        kept, total = self._replicas.sum_over_workers(sums)
        return max(1 - kept / total, 0.0) if total else 0.0  # no counts: no items occur together

    def _fill_shard(self, replica: int, combination: int) -> np.ndarray:
        """Computes and stores the table rows of a replica.

        Returns [2]: the sums of `CountedRows.kept` and of `CountedRows.total` over these rows.
        """
        sums, first = np.zeros(2), Counter[str]()
        for rows in self._count_rows(combination, replica, self._replicas.count):
            for name, values in rows.tables.items():
                self.state.tables[name].values.assign_owned(replica, first[name], values)
                first[name] += len(values)
            sums += rows.kept, rows.total
            self._on_progress()
        return sums
