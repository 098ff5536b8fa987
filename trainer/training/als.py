"""Weighted alternating least squares: solves for all visitor vectors with the item vectors fixed, then vice versa.

The work is distributed as in ALX (Mehta et al., 2021): the Gramian is summed over the replicas. Each replica solves the
rows that it owns. For each batch, it reads the vectors of the fixed table from the replicas that own them.

Shapes: R replicas, V visitors and I items of the vocabularies, D columns of a table; for a batch on one replica: M
rows, L entries per row, E entries in total, including padding.
"""

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from trainer.config.optimizers import AlternatingConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import read_interactions, row_batches
from trainer.distributed.embeddings import ShardedTable, chunk_rows
from trainer.distributed.precision import full_float32
from trainer.distributed.replicas import Replicas, rows_owned
from trainer.models.build import build_tables
from trainer.models.least_squares import row_l2, solve_rows
from trainer.runs.checkpoint import TrainState


class AlsTrainer:
    """Trains by alternating least squares; a step is one sweep over all visitors and items."""

    def __init__(self, config: RunConfig, dataset: Dataset, replicas: Replicas) -> None:
        """Builds tables of zeros, and reads the training events.

        Raises:
          ValueError: no training event has a weight above 0.
        """
        tables = build_tables(config, dataset, replicas)
        weights = config.loss.weights_by_kind(dataset.manifest)
        matrix = read_interactions(dataset, weights, config.loss.half_life_days, config.als.weight_power)
        self._config = config
        self._solver = AlternatingSolver(config.als, matrix, tables, replicas)
        self.state = TrainState(tables, [], [])

    def advance(self, first: int, count: int) -> np.ndarray:  # noqa: ARG002 (every sweep is the same)
        """Runs `count` sweeps, and returns their losses [count]."""
        return np.array([self._solver.sweep() for _ in range(count)], np.float32)

    def describe_input(self, step: int) -> str:  # noqa: ARG002
        """Returns an empty text, because every sweep reads all events."""
        return ""

    @property
    def remedy(self) -> str:
        """Advice for a diverged run: settings to change, with their current values."""
        l2, stddev = self._config.als.l2, self._config.model.initial_stddev
        return f"raise als.l2 (now {l2:g}) or lower model.initial_stddev (now {stddev:g})"


class AlternatingSolver:
    """Updates the tables of a factorization in sweeps: first all visitors, then all items."""

    def __init__(
        self,
        config: AlternatingConfig,
        matrix: sp.csr_matrix,
        tables: Mapping[str, ShardedTable],
        replicas: Replicas,
    ) -> None:
        """Divides the rows of both tables into batches.

        Args:
          config: settings of the objective.
          matrix: [V, I] weight of each observed (visitor, item) pair, above 0.
          tables: the tables `visitor` and `item`.
          replicas: the replicas that own the table rows.
        """
        self._visitors = _Side(config, matrix, tables["visitor"], tables["item"], replicas)
        self._items = _Side(config, matrix.T.tocsr(), tables["item"], tables["visitor"], replicas)
        self._zero_loss = float(matrix.sum() + config.unobserved_weight * matrix.nnz)

    def sweep(self) -> float:
        """Runs one sweep and returns its loss: the objective divided by that of all-zero vectors, so at most 1."""
        with full_float32():
            _, visitor_l2 = self._visitors.solve()
            item_loss, _ = self._items.solve()
        return float(item_loss + visitor_l2) / self._zero_loss


class _Side:
    """Half of a sweep: solves the rows of one table, with the other table fixed."""

    def __init__(
        self,
        config: AlternatingConfig,
        matrix: sp.csr_matrix,
        table: ShardedTable,
        fixed: ShardedTable,
        replicas: Replicas,
    ) -> None:
        self._config, self._replicas = config, replicas
        self._table, self._fixed = table, fixed
        self._num_fixed = matrix.shape[1]
        self._batches = list(row_batches(matrix, replicas.count, config.batch_entries))
        self._rotate = tf.function(lambda: replicas.run(self._rotate_fixed), autograph=False)
        self._solve = {is_long: self._compile(is_long) for is_long in (False, True)}

    def solve(self) -> np.ndarray:
        """Solves all rows of one table, with the other table fixed.

        Returns:
          [2]: the objective without the L2 penalty of the fixed table, and the L2 penalty of the solved table.
        """
        gramian = self._rotate()
        totals = np.zeros(2)
        for batch in self._batches:
            solve = self._solve[batch.length > self._table.dim]
            totals += solve(batch.row, batch.column, batch.weight, batch.length, gramian).numpy()
        return totals

    def _compile(self, is_long: bool) -> tf.types.experimental.PolymorphicFunction:
        count, size = self._replicas.count, self._batches[0].column.shape[1]

        def on_replica(replica: int, *inputs: tf.Tensor) -> tf.Tensor:
            return self._solve_on_replica(replica, *inputs, is_long=is_long)

        return tf.function(
            lambda *inputs: self._replicas.run(on_replica, *inputs),
            autograph=False,
            input_signature=[
                tf.TensorSpec([count, None], tf.int64),
                tf.TensorSpec([count, size], tf.int64),
                tf.TensorSpec([count, size], tf.float32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([self._table.dim], tf.float32),
            ],
        )

    def _rotate_fixed(self, replica: int) -> tf.Tensor:
        """Rotates a replica's rows of the fixed table so that the table's Gramian is diagonal; returns the diagonal.

        This does not change the scores, because the solved table is then computed from the rotated rows.
        """
        shard = self._fixed.values.shards[replica]
        # the rows of unknown ids, which follow the vocabulary, are not part of the objective
        known = rows_owned(self._num_fixed, replica, self._replicas.count)
        gramian = self._replicas.all_reduce(_gramian(shard, known))
        values, basis = tf.linalg.eigh(tf.cast(gramian, tf.float64))
        both = tf.cast(tf.concat([tf.maximum(values, 0)[None], basis], axis=0), tf.float32)
        # all replicas use the first one's result: signs and the order of equal eigenvalues may differ between machines
        both = self._replicas.all_reduce(both if replica == 0 else tf.zeros_like(both))
        _multiply(shard, both[1:])
        return both[0]

    def _solve_on_replica(
        self,
        replica: int,
        row: tf.Tensor,
        column: tf.Tensor,
        weight: tf.Tensor,
        length: tf.Tensor,
        gramian: tf.Tensor,
        *,
        is_long: bool,
    ) -> tf.Tensor:
        """Solves this replica's rows of a batch.

        Args:
          replica: index of this replica.
          row: [R, M] int64: indices of the table rows that each replica solves; padded with -1.
          column: [R, E] int64: for each entry, the index of its row in the fixed table.
          weight: [R, E] float32 weights of the entries.
          length: number of entries per row, L, a scalar int32.
          gramian: [D] diagonal of the Gramian of the fixed table.
          is_long: whether L > D.

        Returns:
          [2]: the two terms that `solve` returns, for this batch only, summed over all replicas.
        """
        config, dim = self._config, self._table.dim
        read = self._fixed.lookup(replica, column[replica]).vectors()
        rows = row[replica]
        num_entries = tf.size(rows) * length
        vectors = tf.reshape(read[:num_entries], [-1, length, dim])
        weights = tf.reshape(weight[replica, :num_entries], [-1, length])
        l2 = row_l2(
            tf.math.count_nonzero(weights, axis=1),
            self._num_fixed,
            l2=config.l2,
            l2_power=config.l2_power,
            unobserved_weight=config.unobserved_weight,
        )
        solved, residual = solve_rows(
            vectors, weights, gramian, l2, unobserved_weight=config.unobserved_weight, is_long=is_long
        )
        is_row = rows >= 0
        own = tf.boolean_mask(solved, is_row)
        positions = tf.boolean_mask(rows, is_row) // self._replicas.count
        self._table.values.shards[replica].scatter_update(tf.IndexedSlices(own, positions))
        row_l2_term = tf.reduce_sum(l2[:, None] * tf.square(solved))  # the solution of a padding row is 0
        return self._replicas.all_reduce(tf.stack([tf.reduce_sum(residual), row_l2_term]))


def _gramian(shard: tf.Variable, count: int) -> tf.Tensor:
    """Returns [D, D]: the Gramian of the first `count` rows of a shard. Reads the rows in chunks, to save memory."""
    size = chunk_rows(shard.shape[1])

    def add(start: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = shard.sparse_read(tf.range(start, tf.minimum(start + size, count)))
        return start + size, total + tf.matmul(rows, rows, transpose_a=True)

    state = tf.constant(0, tf.int64), tf.zeros([shard.shape[1]] * 2)
    return tf.while_loop(lambda start, _: start < count, add, state, parallel_iterations=1)[1]


def _multiply(shard: tf.Variable, basis: tf.Tensor) -> None:
    """Multiplies the rows of a shard by `basis` [D, D], in place and in chunks."""
    size = chunk_rows(shard.shape[1])

    def rotate(start: tf.Tensor) -> tuple[tf.Tensor]:
        rows = tf.range(start, tf.minimum(start + size, shard.shape[0]))
        shard.scatter_update(tf.IndexedSlices(tf.matmul(shard.sparse_read(rows), basis), rows))
        return (start + size,)

    tf.while_loop(lambda start: start < shard.shape[0], rotate, (tf.constant(0, tf.int64),), parallel_iterations=1)
