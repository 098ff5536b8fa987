"""Training objectives: the table rows that a step reads, and its loss as a function of these rows.

Shapes: B rows of the global batch, b = B / R rows of this replica, K ≤ B in-batch items, N sampled negatives,
C = K + N candidates, H history, J items that a row looks up for itself, D embedding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import keras
import numpy as np
import tensorflow as tf

from trainer.config.losses import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import Batch, count_rows
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import Lookup, ShardedTable
from trainer.models.losses import SAMPLED_LOSSES, WEIGHT_LOSSES

_DAY_MS = 24 * 60 * 60 * 1000
_NUMBERS_PER_COUNT = 4

Tables = Mapping[str, ShardedTable]
"""A model's tables, by name."""

Inputs = TypeVar("Inputs", bound=tuple)
"""Type of a loss's inputs other than weights: a NamedTuple of tensors."""


class Prepared(NamedTuple, Generic[Inputs]):
    """Everything that the loss of a batch needs on one replica, except dense weights."""

    lookups: dict[str, Lookup]
    """The rows that were looked up, by table."""
    inputs: Inputs
    """All other inputs of the loss, in tensors of fixed shapes."""


class Objective(Protocol[Inputs]):
    """A loss over table rows; it has the same value for any number of replicas."""

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared[Inputs]:
        """Looks up the rows for a global batch; called within `Replicas.run`."""

    def loss(self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: Inputs) -> tf.Tensor:
        """Returns this replica's share of the global batch's mean loss, a scalar; pure, so that XLA can compile it.

        Args:
          vectors: the rows that were looked up, by table.
          dense: the model's dense weights.
          inputs: `Prepared.inputs`, from `prepare`.
        """


@dataclass(frozen=True)
class TrainingModel:
    """The weights of a run, and the objective that trains them."""

    tables: Tables
    """Embedding tables, by name."""
    dense: list[keras.Variable]
    """All other weights."""
    objective: Objective[Any]
    """The loss that training minimizes."""


class SquaredErrorInputs(NamedTuple):
    """Inputs of `SquaredErrorObjective.loss`."""

    target: tf.Tensor
    """[b] weights of the events."""
    weight: tf.Tensor
    """[b] weight of each row in the mean over the global batch; 0 for padding."""


@dataclass(frozen=True)
class SquaredErrorObjective:
    """Mean squared error, or another of WEIGHT_LOSSES, between the score and the weight of the event."""

    config: SquaredErrorConfig
    """Settings of the loss, with the weights of the events."""
    tables: Tables
    """`visitor` and `item`."""
    replicas: int
    """All replicas, R."""
    predict: Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]
    """Computes scores [b] from dense weights, visitor rows [b, …] and item rows [b, …]."""

    def prepare(
        self,
        replica: int,
        batch: Batch,
        step: tf.Tensor,  # noqa: ARG002 (nothing is random)
    ) -> Prepared[SquaredErrorInputs]:
        own = own_slice(batch, replica, self.replicas)
        lookups = {
            "visitor": self.tables["visitor"].lookup(replica, batch.visitor),
            "item": self.tables["item"].lookup(replica, batch.item),
        }
        num_rows = tf.reduce_sum(tf.cast(batch.is_row, tf.float32))
        return Prepared(
            lookups, SquaredErrorInputs(batch.weight[own], tf.cast(batch.is_row[own], tf.float32) / num_rows)
        )

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: SquaredErrorInputs
    ) -> tf.Tensor:
        scores = self.predict(dense, vectors["visitor"], vectors["item"])
        return tf.reduce_sum(inputs.weight * WEIGHT_LOSSES[self.config.kind](scores, inputs.target))


class Candidates(NamedTuple):
    """The positives of a replica's rows, and the candidates that each of these rows is scored against."""

    positive: tf.Tensor
    """[b] item of each row."""
    positive_index: tf.Tensor | None
    """[b] index of the positive among the candidates; None: each row looks up its positive, see `entries`."""
    weight: tf.Tensor
    """[b] weight of each row in the weighted mean over the global batch."""
    items: tf.Tensor
    """[C] the in-batch items, then the sampled negatives."""
    log_expected_count: tf.Tensor
    """[C] logQ correction: log of how often each item is expected among the candidates of a row."""
    is_candidate: tf.Tensor
    """[C] bool; False for in-batch items that come from padding or invalid rows."""

    @classmethod
    def of_batch(
        cls,
        batch: Batch,
        is_valid: tf.Tensor,
        config: SampledSoftmaxConfig,
        sampler: NegativeSampler,
        step: tf.Tensor,
        own: slice,
    ) -> "Candidates":
        """Builds the positives of the rows `own`, and the candidates, which are the same on every replica.

        Args:
          is_valid: [B] bool: whether the row contributes to the loss; see `valid_rows`.
        """
        weights = tf.cast(is_valid, tf.float32) * example_weights(batch, config)
        negatives = sampler.draw(step)
        rows = in_batch_rows(batch.item.shape[0], config)
        has_all = len(rows) == batch.item.shape[0]
        item, is_in_batch = (x if has_all else tf.gather(x, rows) for x in (batch.item, is_valid))
        items = tf.concat([item, negatives], axis=0)
        count = tf.reduce_sum(tf.cast(is_in_batch, tf.float32))
        # a row is one of the in-batch candidates with probability count / valid rows, and never its own negative
        num_others = count - tf.math.divide_no_nan(count, tf.reduce_sum(tf.cast(is_valid, tf.float32)))
        return cls(
            positive=batch.item[own],
            positive_index=tf.range(own.start, own.stop) if has_all else None,
            weight=tf.math.divide_no_nan(weights, tf.reduce_sum(weights))[own],
            items=items,
            log_expected_count=sampler.log_expected_count(tf.minimum(items, sampler.num_items - 1), num_others),
            is_candidate=tf.concat([is_in_batch, tf.ones_like(negatives, tf.bool)], axis=0),
        )

    def entries(self, batch: Batch) -> tf.Tensor:
        """[B, J] items that each row looks up for itself: its history, and its positive if `positive_index` is None."""
        if self.positive_index is not None:
            return batch.history
        return tf.concat([batch.history, batch.item[:, None]], axis=1)

    def split_entries(self, rows: tf.Tensor, history_length: int) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Splits the table rows [bJ, W] of `entries` into rows of the histories [b, H, W] and of the positives [b, W].

        The second result is None if the positives are among the candidates.
        """
        num_entries = history_length + (self.positive_index is None)
        rows = tf.reshape(rows, [self.positive.shape[0], num_entries, rows.shape[1]])
        if self.positive_index is not None:
            return rows, None
        return rows[:, :history_length], rows[:, history_length]


def in_batch_rows(batch_size: int, config: SampledSoftmaxConfig) -> np.ndarray:
    """Returns indices of rows of a global batch, ascending; the positives of these rows are the in-batch candidates.

    The rows are evenly spaced, so that every replica has an equal share of them. Batches are shuffled, so the rows are
    a random sample.
    """
    count = min(batch_size, config.max_in_batch_negatives) if config.in_batch_negatives else 0
    return np.arange(count) * batch_size // max(count, 1)


class FactorsConfig(Protocol):
    """The settings of a dot-product model that `SampledSoftmaxObjective` reads."""

    @property
    def dim(self) -> int:
        """Entries of an embedding vector, D."""

    @property
    def history_length(self) -> int:
        """Maximum number of item vectors whose sum is a visitor's vector; 0: visitors have an embedding table."""

    @property
    def visitor_dropout(self) -> float:
        """Share of a visitor vector's entries that a training step drops."""


class Factors(Protocol):
    """A model with dot products as scores; see `matrix_factorization.MatrixFactorization`."""

    @property
    def config(self) -> FactorsConfig: ...

    def embed_visitors(self, rows: tf.Tensor, dense: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns visitor vectors [b, D], computed from rows of the visitor table or sums of item vectors, [b, D]."""

    def embed_items(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns item vectors [C, D] and biases [C], computed from rows [C, W] of the item table."""

    def sum_items(self, rows: tf.Tensor, is_entry: tf.Tensor) -> tf.Tensor:
        """[b, D]: sums of item vectors over the entries with `is_entry` [b, H]; `rows` [b, H, W]: item table rows."""

    def pair_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """[b] scores, for visitor vectors [b, D], item vectors [b, D] and their biases [b]."""

    def candidate_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """[b, C] scores, for visitor vectors [b, D], item vectors [C, D] and their biases [C]."""


class SampledSoftmaxInputs(NamedTuple):
    """Inputs of `SampledSoftmaxObjective.loss`."""

    candidates: Candidates
    """Positives and candidates."""
    keep: tf.Tensor
    """[b, D] dropout of the visitor vectors: 0 for a dropped entry, else 1 / share kept."""
    is_history: tf.Tensor
    """[b, H] bool: whether there is a history entry at this position that is not the positive."""


@dataclass(frozen=True)
class SampledSoftmaxObjective:
    """Cross entropy, or another of SAMPLED_LOSSES, of the positive against in-batch and sampled negatives.

    A row whose item is outside the vocabulary is skipped: it does not contribute to the loss, and its item is not a
    candidate. If visitor vectors are sums of item vectors, the positive is removed from the history, and rows whose
    history is then empty are skipped too.
    """

    config: SampledSoftmaxConfig
    """Settings of the loss, with the weights of examples."""
    tables: Tables
    """`item` and, unless visitor vectors are sums of item vectors, `visitor`."""
    replicas: int
    """All replicas, R."""
    model: Factors
    """Computes scores from table rows."""
    sampler: NegativeSampler
    """Draws the negatives."""
    seed: int
    """Seed of the dropout."""

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared[SampledSoftmaxInputs]:
        is_history = history_without_target(batch, self.sampler.num_items)
        is_valid = valid_rows(batch, self.sampler.num_items, is_history)
        own = own_slice(batch, replica, self.replicas)
        candidates = Candidates.of_batch(batch, is_valid, self.config, self.sampler, step, own)
        shape = [batch.visitor.shape[0], self.model.config.dim]
        keep = dropout_mask(shape, self.model.config.visitor_dropout, self.seed, step, own)
        entries = tf.reshape(candidates.entries(batch), [-1])
        lookups = {"item": self.tables["item"].lookup(replica, entries, candidates.items)}
        if not self.model.config.history_length:
            lookups["visitor"] = self.tables["visitor"].lookup(replica, batch.visitor)
        return Prepared(lookups, SampledSoftmaxInputs(candidates, keep, is_history[own]))

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: SampledSoftmaxInputs
    ) -> tf.Tensor:
        candidates, keep, is_history = inputs
        num_candidates = candidates.items.shape[0]
        entry_rows, candidate_rows = tf.split(vectors["item"], [-1, num_candidates])
        history_rows, positive_rows = candidates.split_entries(entry_rows, is_history.shape[1])
        items, biases = self.model.embed_items(candidate_rows)
        if self.model.config.history_length:
            rows = self.model.sum_items(history_rows, is_history)
        else:
            rows = vectors["visitor"]
        visitors = self.model.embed_visitors(rows, dense) * keep
        if positive_rows is None:
            index = candidates.positive_index
            positive_rows = tf.gather(candidate_rows, index)  # for the L2 penalty
            positive = self.model.pair_scores(visitors, tf.gather(items, index), tf.gather(biases, index))
        else:
            positive = self.model.pair_scores(visitors, *self.model.embed_items(positive_rows))
        scores = self.model.candidate_scores(visitors, items, biases)
        is_hit = tf.equal(candidates.positive[:, None], candidates.items[None, :])
        losses = SAMPLED_LOSSES[self.config.kind](
            positive, scores, candidates.log_expected_count, is_hit | ~candidates.is_candidate
        )
        if self.config.l2:
            losses += self.config.l2 * self._squared_norms(rows, positive_rows, candidate_rows)
        return tf.reduce_sum(candidates.weight * losses)

    def _squared_norms(self, visitor_rows: tf.Tensor, positive_rows: tf.Tensor, candidate_rows: tf.Tensor) -> tf.Tensor:
        """[b]: squared norms of a row's visitor and positive, plus 1 / B of the sum over all sampled negatives."""
        read = tf.concat([visitor_rows, positive_rows], axis=1)
        negative_rows = candidate_rows[candidate_rows.shape[0] - self.sampler.num_negatives :]
        # the negatives are read once for the whole batch, and the weights of its rows add up to 1
        batch_size = visitor_rows.shape[0] * self.replicas
        return tf.reduce_sum(tf.square(read), axis=1) + tf.reduce_sum(tf.square(negative_rows)) / batch_size


def known_entries(batch: Batch, num_items: int) -> tf.Tensor:
    """[B, H] bool: whether the item of each history entry is in the vocabulary; False for padding."""
    return batch.is_history & (batch.history < num_items)


def history_without_target(batch: Batch, num_items: int) -> tf.Tensor:
    """[B, H] bool: like `known_entries`, but False for entries with the row's positive."""
    return known_entries(batch, num_items) & (batch.history != batch.item[:, None])


def valid_rows(batch: Batch, num_items: int, is_entry: tf.Tensor) -> tf.Tensor:
    """[B] bool: whether each row contributes to the loss.

    The row's item must be in the vocabulary. If H > 0, at least one `is_entry` [B, H] of the row must be True.
    """
    is_valid = batch.is_row & (batch.item < num_items)
    return is_valid & tf.reduce_any(is_entry, axis=1) if is_entry.shape[1] else is_valid


def negative_sampler(
    loss: SampledSoftmaxConfig, dataset: Dataset, config: RunConfig, entries: Callable[[Batch, int], tf.Tensor]
) -> NegativeSampler:
    """Creates a sampler that draws from the items with training events.

    The logQ correction needs to know how often each item is an in-batch candidate, so the items are counted in an epoch
    of batches. Counts of training events would be too high, because rows without a history are skipped.

    Args:
      entries: selects the history entries that the model reads, given a batch and the number of items:
        `known_entries` or `history_without_target`.
    """
    num_items = dataset.num_trained_items

    def candidates(batch: Batch) -> tf.Tensor:
        return tf.boolean_mask(batch.item, valid_rows(batch, num_items, entries(batch, num_items)))

    item_counts = dataset.item_counts[:num_items]
    return NegativeSampler(
        item_counts,
        batch_counts=count_rows(
            dataset.training_events,
            config.input,
            candidates,
            num_items,
            config.history_length,
            config.is_sequential,
        ),
        is_sampled=item_counts > 0,
        num_negatives=loss.num_negatives,
        negative_power=loss.negative_power,
        seed=config.seed,
        uniform_share=loss.uniform_share,
        in_batch_negatives=loss.in_batch_negatives,
    )


def compute_dtype(config: RunConfig) -> tf.DType:
    """Returns the data type of matrix products."""
    return tf.bfloat16 if config.mixed_precision else tf.float32


def example_weights(batch: Batch, config: SampledSoftmaxConfig) -> tf.Tensor:
    """[B] float32 weights of examples, by event kind and age.

    Only proportions matter, so ages are relative to the newest row of the batch.
    """
    if config.half_life_days is None:
        return batch.weight
    age_days = tf.cast(tf.reduce_max(batch.timestamp_ms) - batch.timestamp_ms, tf.float32) / _DAY_MS
    return batch.weight * tf.pow(0.5, age_days / config.half_life_days)


def own_slice(batch: Batch, replica: int, replicas: int) -> slice:
    """Returns the slice of a global batch that belongs to a replica."""
    size = batch.visitor.shape[0] // replicas
    return slice(replica * size, (replica + 1) * size)


def dropout_mask(shape: Sequence[int], rate: float, seed: int, step: tf.Tensor, rows: slice) -> tf.Tensor:
    """Returns an inverted-dropout mask: 0 for a dropped entry, else 1 / share kept; see `keep_mask`."""
    return keep_mask(shape, rate, seed, step, stream=1, rows=rows) / (1 - rate)


def keep_mask(
    shape: Sequence[int], rate: float, seed: int, step: tf.Tensor, *, stream: int, rows: slice = slice(None)
) -> tf.Tensor:
    """Returns the slice `rows` of a random float32 mask of `shape`: 0 for a share `rate` of the entries, else 1.

    The first axis is the global batch. An entry depends only on the seed, the step, its position in the global batch
    and `stream`, which differs between the masks of a step. So the mask is the same for any number of replicas. Random
    numbers are drawn for the slice only.
    """
    begin, end, _ = rows.indices(shape[0])
    own_shape = [end - begin, *shape[1:]]
    if rate == 0:
        return tf.ones(own_shape)
    # without folding in the stream, masks would be correlated with each other and with the step's negatives
    key = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), step]), stream)
    generator, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
    # a Philox count gives four numbers (Salmon et al., SC 2011); each row starts at a count of its own
    num_entries = math.prod(shape[1:])
    num_counts = -(-num_entries // _NUMBERS_PER_COUNT)
    uniform = tf.raw_ops.StatelessRandomUniformV2(
        shape=[end - begin, num_counts * _NUMBERS_PER_COUNT],
        key=generator,
        counter=counter + tf.constant([begin * num_counts, 0], tf.uint64),
        alg=tf.random.Algorithm.PHILOX.value,
    )
    return tf.cast(tf.reshape(uniform[:, :num_entries], own_shape) >= rate, tf.float32)
