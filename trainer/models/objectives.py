"""What a training step minimizes: which rows it reads of which table, and its loss as a function of them.

Shapes: B rows of the global batch, b = B / R rows of this replica, N drawn items, C = B + N candidates, H history, D
embedding.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from contract.schema import Split
from trainer.config.run import RunConfig, SampledSoftmaxConfig, SquaredErrorConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import Batch, count_rows
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import Lookup, ShardedTable
from trainer.models.losses import SAMPLED_LOSSES, WEIGHT_LOSSES

_DAY_MS = 24 * 60 * 60 * 1000
_NUMBERS_A_COUNT = 4

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
class TrainingModel:
    """What a run trains: tables by name, dense weights, and the objective over both."""

    tables: Tables
    dense: list[keras.Variable]
    objective: Objective


@dataclass(frozen=True)
class SquaredErrorObjective:
    """Mean squared error between the score and the weight of the event's kind, or another of WEIGHT_LOSSES.

    predict   [b] scores from dense weights, visitor rows [b, …] and item rows [b, …]
    """

    config: SquaredErrorConfig
    tables: Tables
    replicas: int
    predict: Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:  # noqa: ARG002 (nothing is drawn)
        own = own_slice(batch, replica, self.replicas)
        lookups = {
            "visitor": self.tables["visitor"].lookup(replica, batch.visitor),
            "item": self.tables["item"].lookup(replica, batch.item),
        }
        num_rows = tf.reduce_sum(tf.cast(batch.is_row, tf.float32))
        target = tf.gather(tf.constant(self.config.event_weights), batch.event[own])
        return Prepared(lookups, (target, tf.cast(batch.is_row[own], tf.float32) / num_rows))

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        target, weight = inputs
        scores = self.predict(dense, vectors["visitor"], vectors["item"])
        return tf.reduce_sum(weight * WEIGHT_LOSSES[self.config.kind](scores, target))


class Candidates(NamedTuple):
    """What the rows of a replica are scored against, and what each of them counts.

    chosen               [b] item of each row
    chosen_place         [b] its place among the candidates
    weight               [b] share of the global batch's weight
    items                [C] those of the global batch, then the drawn ones
    log_expected_count   [C]
    is_candidate         [C] False for padding and items that do not count
    """

    chosen: tf.Tensor
    chosen_place: tf.Tensor
    weight: tf.Tensor
    items: tf.Tensor
    log_expected_count: tf.Tensor
    is_candidate: tf.Tensor

    @classmethod
    def of_batch(
        cls,
        batch: Batch,
        is_counted: tf.Tensor,
        config: SampledSoftmaxConfig,
        sampler: NegativeSampler,
        step: tf.Tensor,
        own: slice,
    ) -> "Candidates":
        """The candidates of a global batch and a step, the same on every replica, and the replica's `own` rows.

        Args:
          is_counted: [B] bool: the row has an item of the vocabulary and counts.
        """
        weights = tf.cast(is_counted, tf.float32) * example_weights(batch, config)
        drawn = sampler.draw(step)
        items = tf.concat([batch.item, drawn], axis=0)
        num_others = tf.maximum(tf.reduce_sum(tf.cast(is_counted, tf.float32)) - 1, 0)
        return cls(
            chosen=batch.item[own],
            chosen_place=tf.range(own.start, own.stop),
            weight=tf.math.divide_no_nan(weights, tf.reduce_sum(weights))[own],
            items=items,
            log_expected_count=sampler.log_expected_count(tf.minimum(items, sampler.num_items - 1), num_others),
            is_candidate=tf.concat([is_counted & config.in_batch_negatives, tf.ones_like(drawn, tf.bool)], axis=0),
        )


class FactorsConfig(Protocol):
    """What a softmax needs to know of a model whose scores are products of vectors.

    history_length    0: visitors have rows of their own; else items that a visitor is made of
    visitor_dropout   share of a visitor vector's entries hidden in a training step
    """

    @property
    def dim(self) -> int: ...
    @property
    def history_length(self) -> int: ...
    @property
    def visitor_dropout(self) -> float: ...


class Factors(Protocol):
    """A model whose scores are products of vectors; see `matrix_factorization.MatrixFactorization`."""

    @property
    def config(self) -> FactorsConfig: ...

    def place_visitors(self, rows: tf.Tensor, dense: Sequence[tf.Tensor]) -> tf.Tensor:
        """[b, D] for rows of the visitor table, or sums of placed items."""

    def place_items(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Vectors [C, D] and biases [C] for rows of the item table."""

    def sum_items(self, rows: tf.Tensor, is_entry: tf.Tensor) -> tf.Tensor:
        """[b, D] sums of placed items, of rows [b, H, W] of the item table where `is_entry` [b, H]."""

    def pair_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """[b] for placed visitors [b, D], placed items [b, D] and their biases [b]."""

    def candidate_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """[b, C] for placed visitors [b, D], placed items [C, D] and their biases [C]."""


@dataclass(frozen=True)
class SampledSoftmaxObjective:
    """Cross entropy of the item chosen against the items of the global batch and drawn ones, or another SAMPLED_LOSSES.

    A row whose item is not in the vocabulary neither counts nor is a candidate. Where visitors are made of their items,
    the item chosen is left out of them wherever it stands, and a row of which nothing is left does not count either.
    """

    config: SampledSoftmaxConfig
    tables: Tables
    replicas: int
    model: Factors
    sampler: NegativeSampler
    seed: int

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:
        is_history = history_without_target(batch, self.sampler.num_items)
        is_counted = valid_rows(batch, self.sampler.num_items, is_history)
        own = own_slice(batch, replica, self.replicas)
        candidates = Candidates.of_batch(batch, is_counted, self.config, self.sampler, step, own)
        shape = [batch.visitor.shape[0], self.model.config.dim]
        keep = dropout_mask(shape, self.model.config.visitor_dropout, self.seed, step, own)
        # visitors made of their items come before the candidates
        lookups = {"item": self.tables["item"].lookup(replica, tf.reshape(batch.history, [-1]), candidates.items)}
        if not self.model.config.history_length:
            lookups["visitor"] = self.tables["visitor"].lookup(replica, batch.visitor)
        return Prepared(lookups, (candidates, keep, is_history[own]))

    def loss(
        self,
        vectors: Mapping[str, tf.Tensor],
        dense: Sequence[tf.Tensor],
        inputs: tuple[tf.Tensor, ...],
    ) -> tf.Tensor:
        given, keep, is_history = inputs
        touched, candidate_rows = tf.split(vectors["item"], [is_history.shape[0] * is_history.shape[1], -1])
        items, biases = self.model.place_items(candidate_rows)
        if self.model.config.history_length:
            rows = self.model.sum_items(tf.reshape(touched, [*is_history.shape, touched.shape[1]]), is_history)
        else:
            rows = vectors["visitor"]
        visitors = self.model.place_visitors(rows, dense) * keep
        positive = self.model.pair_scores(
            visitors, tf.gather(items, given.chosen_place), tf.gather(biases, given.chosen_place)
        )
        scores = self.model.candidate_scores(visitors, items, biases)
        is_hit = tf.equal(given.chosen[:, None], given.items[None, :])
        losses = SAMPLED_LOSSES[self.config.kind](
            positive, scores, given.log_expected_count, is_hit | ~given.is_candidate
        )
        if self.config.l2:
            losses += self.config.l2 * self._squares(rows, candidate_rows, given.chosen_place)
        return tf.reduce_sum(given.weight * losses)

    def _squares(self, visitor_rows: tf.Tensor, candidate_rows: tf.Tensor, chosen_place: tf.Tensor) -> tf.Tensor:
        """[b]: each row's share of the squares of what the step reads: visitors, items chosen, items drawn."""
        read = tf.concat([visitor_rows, tf.gather(candidate_rows, chosen_place)], axis=1)
        num_rows = candidate_rows.shape[0] - self.sampler.num_negatives
        # drawn rows are read once for the whole batch, whose rows' weights add up to 1
        return tf.reduce_sum(tf.square(read), axis=1) + tf.reduce_sum(tf.square(candidate_rows[num_rows:])) / num_rows


def known_entries(batch: Batch, num_items: int) -> tf.Tensor:
    """[B, H] bool: the entries of histories whose item is of the vocabulary."""
    return batch.is_history & (batch.history < num_items)


def history_without_target(batch: Batch, num_items: int) -> tf.Tensor:
    """[B, H] bool: the same, without the item to be found."""
    return known_entries(batch, num_items) & (batch.history != batch.item[:, None])


def valid_rows(batch: Batch, num_items: int, is_entry: tf.Tensor) -> tf.Tensor:
    """[B] bool: rows of an item of the vocabulary and, where they come with histories, of an entry [B, H] at least."""
    is_counted = batch.is_row & (batch.item < num_items)
    return is_counted & tf.reduce_any(is_entry, axis=1) if is_entry.shape[1] else is_counted


def negative_sampler(
    loss: SampledSoftmaxConfig, dataset: Dataset, config: RunConfig, entries: Callable[[Batch, int], tf.Tensor]
) -> NegativeSampler:
    """The sampler of the items that training knows: the first ones of the vocabulary.

    What the batches show is counted, and is not the training events: rows without a history are in no batch.

    Args:
      entries: what makes a row count, given a batch and the number of items: `known_entries`, or
        `history_without_target`.
    """
    num_items = dataset.num_trained_items()

    def candidates(batch: Batch) -> tf.Tensor:
        return tf.boolean_mask(batch.item, valid_rows(batch, num_items, entries(batch, num_items)))

    shards = dataset.shards(Split.TRAIN)
    return NegativeSampler(
        dataset.item_counts()[:num_items],
        batch_counts=count_rows(
            shards, config.input, candidates, num_items, config.history_length, config.is_sequential
        ),
        num_negatives=loss.num_negatives,
        negative_power=loss.negative_power,
        seed=config.seed,
        uniform_share=loss.uniform_share,
        in_batch_negatives=loss.in_batch_negatives,
    )


def compute_dtype(config: RunConfig) -> tf.DType:
    """Of matrix products."""
    return tf.bfloat16 if config.mixed_precision else tf.float32


def example_weights(batch: Batch, config: SampledSoftmaxConfig) -> tf.Tensor:
    """[B] float32 by kind and age; only their proportions matter, so that ages count from the batch's youngest row."""
    weights = tf.gather(tf.constant(config.event_weights), batch.event)
    if config.half_life_days is None:
        return weights
    age_days = tf.cast(tf.reduce_max(batch.timestamp_ms) - batch.timestamp_ms, tf.float32) / _DAY_MS
    return weights * tf.pow(0.5, age_days / config.half_life_days)


def own_slice(batch: Batch, replica: int, replicas: int) -> slice:
    """The places of a replica's rows in a global batch."""
    size = batch.visitor.shape[0] // replicas
    return slice(replica * size, (replica + 1) * size)


def dropout_mask(shape: Sequence[int], rate: float, seed: int, step: tf.Tensor, rows: slice) -> tf.Tensor:
    """float32 of the rows of `shape`: 0 for a hidden entry, else 1 / share kept; as `keep_mask`."""
    return keep_mask(shape, rate, seed, step, stream=1, rows=rows) / (1 - rate)


def keep_mask(
    shape: Sequence[int], rate: float, seed: int, step: tf.Tensor, *, stream: int, rows: slice = slice(None)
) -> tf.Tensor:
    """float32 of some rows of `shape`, whose first axis is the global batch: 1 for a share 1 - rate of entries, else 0.

    A function of the seed, the step, the stream and the entry's place in the global batch, whatever the replicas; only
    the numbers of the rows asked for are drawn.
    """
    begin, end, _ = rows.indices(shape[0])
    own_shape = [end - begin, *shape[1:]]
    if rate == 0:
        return tf.ones(own_shape)
    # folded, or the entries would follow the same numbers that drew the step's negatives, or hid something else
    key = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), step]), stream)
    generator, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
    # Philox counts by fours (Salmon et al., SC 2011): each row begins with a count of its own
    num_entries = math.prod(shape[1:])
    num_counts = -(-num_entries // _NUMBERS_A_COUNT)
    uniform = tf.raw_ops.StatelessRandomUniformV2(
        shape=[end - begin, num_counts * _NUMBERS_A_COUNT],
        key=generator,
        counter=counter + tf.constant([begin * num_counts, 0], tf.uint64),
        alg=tf.random.Algorithm.PHILOX.value,
    )
    return tf.cast(tf.reshape(uniform[:, :num_entries], own_shape) >= rate, tf.float32)
