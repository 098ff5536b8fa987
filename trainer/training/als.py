"""Weighted alternating least squares: all visitors' vectors given the items', then the items' given the visitors'.

Distributed as in ALX (Mehta et al., 2021): the Gramian is summed over the replicas, each of which solves the rows it
owns and reads the others' vectors from their owners, batch by batch.

Shapes: R replicas, V visitors and I items of the vocabularies, D embedding; on one replica E entries of a batch, M rows
of L entries.
"""

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from trainer.config.optimizers import AlternatingConfig
from trainer.data.interactions import row_batches
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.replicas import Replicas, rows_owned
from trainer.models.least_squares import row_l2, solve_rows


class AlternatingSolver:
    """Moves a factorization's tables sweep by sweep; a sweep solves every visitor, then every item."""

    def __init__(
        self,
        config: AlternatingConfig,
        matrix: sp.csr_matrix,
        tables: Mapping[str, ShardedTable],
        replicas: Replicas,
    ) -> None:
        """A solver of the pairs of `matrix` [V, I], of weights above 0, for the tables `visitor` and `item`."""
        self._visitors = _Side(config, matrix, tables["visitor"], tables["item"], replicas)
        self._items = _Side(config, matrix.T.tocsr(), tables["item"], tables["visitor"], replicas)
        self._loss_of_zeros = float(matrix.sum() + config.unobserved_weight * matrix.nnz)

    def sweep(self) -> float:
        """The objective after one more sweep, as a share of what vectors of zeros leave: in (0, 1]."""
        _, l2_of_visitors = self._visitors.solve()
        left, _ = self._items.solve()
        return float(left + l2_of_visitors) / self._loss_of_zeros


class _Side:
    """One half of a sweep: the rows of one table, given the other table."""

    def __init__(
        self,
        config: AlternatingConfig,
        matrix: sp.csr_matrix,
        own: ShardedTable,
        other: ShardedTable,
        replicas: Replicas,
    ) -> None:
        self._config, self._replicas = config, replicas
        self._own, self._other = own, other
        self._num_other = matrix.shape[1]
        self._batches = list(row_batches(matrix, replicas.count, config.batch_entries))
        self._turn = tf.function(lambda: replicas.run(self._turn_other), autograph=False)
        self._solve = {is_long: self._compiled(is_long) for is_long in (False, True)}

    def solve(self) -> np.ndarray:
        """Solves every row; returns [2]: the objective but for the other side's l2, and the share of it that is l2."""
        gramian = self._turn()
        totals = np.zeros(2)
        for batch in self._batches:
            solve = self._solve[batch.length > self._own.dim]
            totals += solve(batch.row, batch.column.reshape(-1), batch.weight, batch.length, gramian).numpy()
        return totals

    def _compiled(self, is_long: bool) -> tf.types.experimental.PolymorphicFunction:
        count, size = self._replicas.count, self._batches[0].column.shape[1]

        def on_replica(replica: int, *given: tf.Tensor) -> tf.Tensor:
            return self._solve_share(replica, *given, is_long=is_long)

        return tf.function(
            lambda *given: self._replicas.run(on_replica, *given),
            autograph=False,
            input_signature=[
                tf.TensorSpec([count, None], tf.int64),
                tf.TensorSpec([count * size], tf.int64),
                tf.TensorSpec([count, size], tf.float32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([self._own.dim], tf.float32),
            ],
        )

    def _turn_other(self, replica: int) -> tf.Tensor:
        """Turns the other table so that its Gramian is diagonal, and returns that, [D]."""
        shard = self._other.values.shards[replica]
        # buckets of unknown ids, beyond the vocabulary, are no pairs of the objective
        known = shard[: rows_owned(self._num_other, replica, self._replicas.count)]
        gramian = self._replicas.all_reduce(tf.matmul(known, known, transpose_a=True))
        values, basis = tf.linalg.eigh(tf.cast(gramian, tf.float64))
        both = tf.cast(tf.concat([tf.maximum(values, 0)[None], basis], axis=0), tf.float32)
        # the first replica's for all: another machine's may differ in signs, or in the order of equal values
        both = self._replicas.all_reduce(both if replica == 0 else tf.zeros_like(both))
        shard.assign(tf.matmul(shard, both[1:]))
        return both[0]

    def _solve_share(
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
        """Solves this replica's rows of a batch; returns [2] over all replicas' rows, as `solve` does."""
        config, dim = self._config, self._own.dim
        read = self._other.lookup(replica, column).vectors()
        rows = row[replica]
        num_entries = tf.size(rows) * length
        vectors = tf.reshape(read[:num_entries], [-1, length, dim])
        weights = tf.reshape(weight[replica, :num_entries], [-1, length])
        l2 = row_l2(
            tf.math.count_nonzero(weights, axis=1),
            self._num_other,
            l2=config.l2,
            l2_power=config.l2_power,
            unobserved_weight=config.unobserved_weight,
        )
        solved, left = solve_rows(
            vectors, weights, gramian, l2, unobserved_weight=config.unobserved_weight, is_long=is_long
        )
        is_row = rows >= 0
        own = tf.boolean_mask(solved, is_row)
        places = tf.boolean_mask(rows, is_row) // self._replicas.count
        self._own.values.shards[replica].scatter_update(tf.IndexedSlices(own, places))
        l2_of_rows = tf.reduce_sum(l2[:, None] * tf.square(solved))  # what fills up is solved by zeros
        return self._replicas.all_reduce(tf.stack([tf.reduce_sum(left), l2_of_rows]))
