"""What a training step minimizes: which rows it reads of which table, and its loss as a function of them.

Shapes: B rows of the global batch, b = B / R rows of this replica, N drawn items, C = B + N candidates, D embedding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import tensorflow as tf

from trainer.config import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.embeddings import Lookup, ShardedTable
from trainer.input_pipeline import Batch
from trainer.losses import sampled_softmax, squared_error
from trainer.models.matrix_factorization import MatrixFactorization
from trainer.negative_sampling import NegativeSampler

Tables = Mapping[str, ShardedTable]


class Prepared(NamedTuple):
    """The rows a replica reads, by table, and what else its loss needs, in tensors of fixed shapes."""

    lookups: dict[str, Lookup]
    inputs: tuple[tf.Tensor, ...]


class Objective(Protocol):
    """A loss over table rows; the same for one replica and for many."""

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:
        """Reads the rows for a global batch; called within `Replicas.run`."""

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        """This replica's share of the global batch's mean loss, a scalar; a pure function, so that XLA can compile it.

        Args:
          vectors: the rows read, by table.
          dense: the model's dense weights.
        """


@dataclass(frozen=True)
class SquaredErrorObjective:
    """Mean squared error between the score and the weight of the event's kind.

    predict   [b] scores from dense weights, visitor rows [b, …] and item rows [b, …]
    """

    config: SquaredErrorConfig
    tables: Tables
    replicas: int
    predict: Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:  # noqa: ARG002 (nothing is drawn)
        share = _own_rows(batch, replica, self.replicas)
        lookups = {
            "visitor": self.tables["visitor"].lookup(replica, batch.visitor, is_divided=True),
            "item": self.tables["item"].lookup(replica, batch.item, is_divided=True),
        }
        num_rows = tf.reduce_sum(tf.cast(batch.is_row, tf.float32))
        target = tf.gather(tf.constant(self.config.event_weights), share.event)
        return Prepared(lookups, (target, tf.cast(share.is_row, tf.float32) / num_rows))

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        target, weight = inputs
        return tf.reduce_sum(weight * squared_error(self.predict(dense, vectors["visitor"], vectors["item"]), target))


class _SoftmaxInputs(NamedTuple):
    """Inputs of `SampledSoftmaxObjective.loss`.

    chosen               [b] item of each row
    chosen_place         [b] its place among the candidates
    weight               [b] share of the global batch's weight
    candidates           [C] items: those of the global batch, then the drawn ones
    log_expected_count   [C]
    is_candidate         [C] False for padding and unknown items
    keep                 [b, D] 0 for a hidden entry of the visitor's vector, else 1 / share kept
    """

    chosen: tf.Tensor
    chosen_place: tf.Tensor
    weight: tf.Tensor
    candidates: tf.Tensor
    log_expected_count: tf.Tensor
    is_candidate: tf.Tensor
    keep: tf.Tensor


@dataclass(frozen=True)
class SampledSoftmaxObjective:
    """Cross entropy of the item chosen against the items of the global batch and drawn ones.

    A row whose item is not in the vocabulary neither counts nor is a candidate.
    """

    config: SampledSoftmaxConfig
    tables: Tables
    replicas: int
    model: MatrixFactorization
    sampler: NegativeSampler
    num_items: int
    seed: int

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:
        is_counted = batch.is_row & (batch.item < self.num_items)
        weights = tf.gather(tf.constant(self.config.event_weights), batch.event) * tf.cast(is_counted, tf.float32)
        drawn = self.sampler.draw(step)
        candidates = tf.concat([batch.item, drawn], axis=0)
        lookups = {
            "visitor": self.tables["visitor"].lookup(replica, batch.visitor, is_divided=True),
            "item": self.tables["item"].lookup(replica, candidates, is_divided=False),
        }
        num_others = tf.maximum(tf.reduce_sum(tf.cast(is_counted, tf.float32)) - 1, 0)
        size = batch.visitor.shape[0] // self.replicas
        own = slice(replica * size, (replica + 1) * size)
        inputs = _SoftmaxInputs(
            chosen=batch.item[own],
            chosen_place=tf.range(own.start, own.stop),
            weight=tf.math.divide_no_nan(weights, tf.reduce_sum(weights))[own],
            candidates=candidates,
            log_expected_count=self.sampler.log_expected_count(tf.minimum(candidates, self.num_items - 1), num_others),
            is_candidate=tf.concat([is_counted, tf.ones_like(drawn, tf.bool)], axis=0),
            keep=self._keep(batch.visitor.shape[0], step)[own],
        )
        return Prepared(lookups, inputs)

    def loss(
        self,
        vectors: Mapping[str, tf.Tensor],
        dense: Sequence[tf.Tensor],  # noqa: ARG002 (a factorization has none)
        inputs: tuple[tf.Tensor, ...],
    ) -> tf.Tensor:
        given = _SoftmaxInputs(*inputs)
        visitors = self.model.place_visitors(vectors["visitor"]) * given.keep
        items, biases = self.model.place_items(vectors["item"])
        positive = self.model.pair_scores(
            visitors, tf.gather(items, given.chosen_place), tf.gather(biases, given.chosen_place)
        )
        scores = self.model.candidate_scores(visitors, items, biases)
        is_hit = tf.equal(given.chosen[:, None], given.candidates[None, :])
        losses = sampled_softmax(positive, scores, given.log_expected_count, is_hit | ~given.is_candidate)
        return tf.reduce_sum(given.weight * losses)

    def _keep(self, batch_size: int, step: tf.Tensor) -> tf.Tensor:
        """[B, D]; a function of the seed, the step and the row's place in the global batch."""
        rate = self.model.config.visitor_dropout
        shape = [batch_size, self.model.config.dim]
        if rate == 0:
            return tf.ones(shape)
        seed = tf.stack([tf.constant(self.seed, tf.int64), step])
        # folded, or the entries would follow the same numbers that drew the step's negatives
        uniform = tf.random.stateless_uniform(shape, tf.random.fold_in(seed, 1))
        return tf.cast(uniform >= rate, tf.float32) / (1 - rate)


def _own_rows(batch: Batch, replica: int, replicas: int) -> Batch:
    """This replica's [b] rows of a global batch [B]."""
    size = batch.visitor.shape[0] // replicas
    return Batch(*(column[replica * size : (replica + 1) * size] for column in batch))
