"""Training objectives: the table rows that a step reads, and its loss as a function of these rows.

Shapes: B rows of the global batch, b = B / R rows of this replica, K ≤ B in-batch items, N sampled negatives,
C = K + N candidates, H history, J items looked up for one row, D embedding.
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
from trainer.distributed.replicas import Replicas
from trainer.models.losses import SAMPLED_LOSSES, WEIGHT_LOSSES

_DAY_MS = 24 * 60 * 60 * 1000
_NUMBERS_PER_COUNT = 4

Tables = Mapping[str, ShardedTable]
"""A model's tables, by name."""

Inputs = TypeVar("Inputs", bound=tuple)
"""Type of a loss's inputs other than weights: a NamedTuple of tensors."""


class Prepared(NamedTuple, Generic[Inputs]):
    """The inputs of `Objective.loss` on one replica for one batch, except the dense weights."""

    lookups: dict[str, Lookup]
    """The rows that were looked up, by table."""
    inputs: Inputs
    """All other inputs of the loss, in tensors of fixed shapes."""


class Objective(Protocol[Inputs]):
    """A loss as a function of table rows and dense weights.

    Each replica computes its part of the loss; the sum of all parts is the loss.
    """

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared[Inputs]:
        """Looks up table rows and prepares the inputs of `loss` on one replica.

        Must run within `Replicas.run`.

        Args:
          replica: index of this replica.
          batch: this replica's rows of the global batch, see `Batch.with_int64`.
          step: scalar int64: number of the training step, which seeds the random numbers.
        """

    def loss(self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: Inputs) -> tf.Tensor:
        """Returns this replica's part of the loss, a scalar; the parts add up to the mean over the global batch.

        XLA compiles this function, so it must have no side effects.

        Args:
          vectors: the rows of `Prepared.lookups`, by name of the table.
          dense: the model's dense weights.
          inputs: `Prepared.inputs` of the same batch.
        """


@dataclass(frozen=True)
class TrainingModel:
    """The weights of a run and the loss that trains them."""

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
    """Loss that compares the predicted scores with the event weights.

    `config.kind` selects the error function from WEIGHT_LOSSES.
    """

    config: SquaredErrorConfig
    """Settings of the loss, with the weights of the events."""
    tables: Tables
    """The tables `visitor` and `item`."""
    replicas: Replicas
    """All replicas, R."""
    predict: Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor]
    """Computes scores [b] from dense weights, visitor rows [b, …] and item rows [b, …]."""

    def prepare(
        self,
        replica: int,
        batch: Batch,
        step: tf.Tensor,  # noqa: ARG002 (nothing is random)
    ) -> Prepared[SquaredErrorInputs]:
        lookups = {
            "visitor": self.tables["visitor"].lookup(replica, batch.visitor),
            "item": self.tables["item"].lookup(replica, batch.item),
        }
        is_row = tf.cast(batch.is_row, tf.float32)
        num_rows = tf.reduce_sum(self.replicas.all_gather(tf.reduce_sum(is_row)[None]))
        return Prepared(lookups, SquaredErrorInputs(batch.weight, is_row / num_rows))

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: SquaredErrorInputs
    ) -> tf.Tensor:
        scores = self.predict(dense, vectors["visitor"], vectors["item"])
        return tf.reduce_sum(inputs.weight * WEIGHT_LOSSES[self.config.kind](scores, inputs.target))


class Candidates(NamedTuple):
    """The b positives of a replica's rows, and the C candidates that all rows share."""

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
        replicas: Replicas,
        replica: int,
    ) -> "Candidates":
        """Builds the positives of a replica's rows, and the candidates.

        The candidates are the same on all replicas.

        Args:
          batch: the rows of this replica.
          is_valid: [b] bool: whether each row contributes to the loss; see `valid_rows`.
          config: settings of the loss.
          sampler: draws the negatives.
          step: scalar int64: number of the training step, which seeds the negatives.
          replicas: all replicas.
          replica: index of this replica.
        """
        size = batch.item.shape[0]
        weights = tf.cast(is_valid, tf.float32) * example_weights(batch, config)
        negatives = sampler.draw(step)
        rows = in_batch_rows(size * replicas.count, config)
        gathered = GlobalBatch.gather(batch, is_valid, weights, config, rows, replicas, replica)
        items = tf.concat([gathered.item, negatives], axis=0)
        count = tf.reduce_sum(tf.cast(gathered.is_valid, tf.float32))
        # a row is one of the in-batch candidates with probability count / valid rows, and never its own negative
        num_others = count - tf.math.divide_no_nan(count, gathered.num_valid)
        has_all = len(rows) == size * replicas.count
        return cls(
            positive=batch.item,
            positive_index=tf.range(replica * size, (replica + 1) * size) if has_all else None,
            weight=tf.math.divide_no_nan(weights * gathered.own_scale, gathered.weight),
            items=items,
            log_expected_count=sampler.log_expected_count(tf.minimum(items, sampler.num_items - 1), num_others),
            is_candidate=tf.concat([gathered.is_valid, tf.ones_like(negatives, tf.bool)], axis=0),
        )

    def entries(self, batch: Batch) -> tf.Tensor:
        """Returns [b, J]: the items to look up for each row.

        They are the items of the row's history and, if `positive_index` is None, the row's positive.
        """
        if self.positive_index is not None:
            return batch.history
        return tf.concat([batch.history, batch.item[:, None]], axis=1)

    def find_rows(self, items: tf.Tensor) -> tf.Tensor:
        """Returns [b, C] bool: whether each candidate is among the items of each row.

        XLA cannot compile this method, because its arrays have no fixed shapes.

        Args:
          items: [b, n] items of each row; negative numbers are padding.
        """
        # searches the sorted candidates; comparing all items with all candidates takes ten times as long
        order = tf.cast(tf.argsort(self.items), tf.int64)
        candidates, wanted = tf.gather(self.items, order), tf.reshape(items, [-1])
        first, end = (tf.searchsorted(candidates, wanted, side, tf.int64) for side in ("left", "right"))
        ends = tf.cumsum(end - first)
        match = tf.range(ends[-1])  # all pairs of an item and an equal candidate, in the order of the items
        entry = tf.searchsorted(ends, match, "right", tf.int64)
        column = tf.gather(order, match + tf.gather(end - ends, entry))
        index = tf.stack([entry // items.shape[1], column], axis=1)
        # repeated items are added up; GPUs cannot scatter booleans
        count = tf.scatter_nd(index, tf.ones_like(match, tf.uint16), [items.shape[0], self.items.shape[0]])
        return tf.cast(count, tf.bool)

    def split_entries(self, rows: tf.Tensor, history_length: int) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Splits `rows`, the table rows of the items that `entries` returned, into histories and positives.

        Args:
          rows: [bJ, W] rows of the item table.
          history_length: the number of history entries, H.

        Returns:
          The rows of the histories [b, H, W] and of the positives [b, W] (None if `positive_index` is set).
        """
        num_entries = history_length + (self.positive_index is None)
        rows = tf.reshape(rows, [self.positive.shape[0], num_entries, rows.shape[1]])
        if self.positive_index is not None:
            return rows, None
        return rows[:, :history_length], rows[:, history_length]


class GlobalBatch(NamedTuple):
    """Data of the global batch that a replica needs in addition to its own rows."""

    item: tf.Tensor
    """[K] items of the in-batch candidates."""
    is_valid: tf.Tensor
    """[K] bool: whether the rows of these items contribute to the loss."""
    num_valid: tf.Tensor
    """Number of all rows that contribute to the loss, scalar float32."""
    weight: tf.Tensor
    """Sum of the weights of all rows, scalar."""
    own_scale: tf.Tensor
    """Scalar factor for this replica's row weights: the decay from its newest row to that of the global batch."""

    @classmethod
    def gather(
        cls,
        batch: Batch,
        is_valid: tf.Tensor,
        weights: tf.Tensor,
        config: SampledSoftmaxConfig,
        rows: np.ndarray,
        replicas: Replicas,
        replica: int,
    ) -> "GlobalBatch":
        """Gathers the in-batch candidates of all replicas, and sums over all rows, in one operation.

        Args:
          batch: the b rows of this replica.
          is_valid: [b] bool: whether each row contributes to the loss.
          weights: [b] `example_weights` of the valid rows, 0 for others.
          rows: [K] indices of the rows of the global batch whose positives are candidates, ascending.
        """
        owner, index = np.divmod(rows, batch.item.shape[0])
        most = int(np.bincount(owner, minlength=1).max())
        own = np.resize(index[owner == replica], most) if most else index
        # an operation sends values of one type: an item and its validity become one integer, and the sum of the weights
        # becomes the integer with the same bits
        codes = tf.gather(2 * batch.item + tf.cast(is_valid, tf.int64), own)
        bits = tf.cast(tf.bitcast(tf.reduce_sum(weights), tf.int32), tf.int64)
        sums = [bits, tf.math.count_nonzero(is_valid), tf.reduce_max(batch.timestamp_ms)]
        found = tf.reshape(replicas.all_gather(tf.concat([codes, sums], axis=0)), [replicas.count, most + len(sums)])
        position = np.arange(len(rows)) - np.searchsorted(
            owner, owner
        )  # index among the candidates of the same replica
        codes = tf.gather(tf.reshape(found, [-1]), owner * (most + len(sums)) + position)
        newest = found[:, -1]
        scale = decay(tf.reduce_max(newest) - newest, config)
        return cls(
            item=codes // 2,
            is_valid=tf.equal(codes % 2, 1),
            num_valid=tf.cast(tf.reduce_sum(found[:, -2]), tf.float32),
            weight=tf.reduce_sum(scale * tf.bitcast(tf.cast(found[:, -3], tf.int32), tf.float32)),
            own_scale=scale[replica],
        )


def in_batch_rows(batch_size: int, config: SampledSoftmaxConfig) -> np.ndarray:
    """Returns [K]: the indices of the batch's rows that supply in-batch candidates, ascending.

    The rows are evenly spaced, so each replica has an equal share. Empty if `in_batch_negatives` is off.
    """
    count = min(batch_size, config.max_in_batch_negatives) if config.in_batch_negatives else 0
    return np.arange(count) * batch_size // max(count, 1)


class FactorsConfig(Protocol):
    """Settings that `SampledSoftmaxObjective` reads from the model's config."""

    @property
    def dim(self) -> int:
        """Size of the embedding vectors, D."""

    @property
    def history_length(self) -> int:
        """Maximum history length, H; if 0, visitors have an embedding table."""

    @property
    def visitor_dropout(self) -> float:
        """Dropout rate of the visitor vectors."""


class Factors(Protocol):
    """A model that computes scores as dot products of vectors; see `matrix_factorization.MatrixFactorization`."""

    @property
    def config(self) -> FactorsConfig: ...

    def embed_visitors(self, rows: tf.Tensor, dense: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns visitor vectors [b, D].

        Args:
          rows: [b, D] rows of the visitor table, or the sums of item vectors from `sum_items`.
          dense: the dense weights.
        """

    def embed_items(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes item vectors, [C, D], and item biases, [C], from rows of the item table, [C, W]."""

    def sum_items(self, rows: tf.Tensor, is_entry: tf.Tensor) -> tf.Tensor:
        """Returns [b, D]: the sum of the item vectors of each history.

        Args:
          rows: [b, H, W] rows of the item table.
          is_entry: [b, H] bool; False for padding.
        """

    def pair_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """Returns [b]: the scores of b (visitor, item) pairs.

        Shapes: `visitors` [b, D], `items` [b, D], `biases` [b].
        """

    def candidate_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """Returns [b, C]: the score of each item for each visitor.

        Shapes: `visitors` [b, D], `items` [C, D], `biases` [C].
        """


class SampledSoftmaxInputs(NamedTuple):
    """Inputs of `SampledSoftmaxObjective.loss`."""

    candidates: Candidates
    """Items to score: the positives of the batch and the negatives."""
    keep: tf.Tensor
    """[b, D] dropout of the visitor vectors: 0 for a dropped entry, else 1 / (share of entries that are kept)."""
    is_history: tf.Tensor
    """[b, H] bool: False for padding, for unknown items and for entries that are the row's positive."""


@dataclass(frozen=True)
class SampledSoftmaxObjective:
    """Loss of the positive against in-batch and sampled negatives; `config.kind` is one of SAMPLED_LOSSES.

    Rows with an unknown positive are skipped. If visitor vectors are sums of item vectors, the positive is removed from
    the row's history, and rows with an empty history are skipped, too.
    """

    config: SampledSoftmaxConfig
    """Settings of the loss, with the weights of examples."""
    tables: Tables
    """The table `item` and, unless visitor vectors are sums of item vectors, the table `visitor`."""
    replicas: Replicas
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
        candidates = Candidates.of_batch(batch, is_valid, self.config, self.sampler, step, self.replicas, replica)
        shape = [batch.visitor.shape[0], self.model.config.dim]
        keep = dropout_mask(shape, self.model.config.visitor_dropout, self.seed, step, replica)
        entries = tf.reshape(candidates.entries(batch), [-1])
        lookups = {"item": self.tables["item"].lookup(replica, entries, candidates.items)}
        if not self.model.config.history_length:
            lookups["visitor"] = self.tables["visitor"].lookup(replica, batch.visitor)
        return Prepared(lookups, SampledSoftmaxInputs(candidates, keep, is_history))

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
        """Returns [b]: the L2 penalty of each row, without the factor `config.l2`.

        It is |visitor vector|² + |positive|² + (sum of |negative|² over all sampled negatives) / B, where B is the
        number of rows of the global batch.

        Args:
          visitor_rows: [b, D].
          positive_rows: [b, W].
          candidate_rows: [C, W]; the sampled negatives are last.
        """
        read = tf.concat([visitor_rows, positive_rows], axis=1)
        negative_rows = candidate_rows[candidate_rows.shape[0] - self.sampler.num_negatives :]
        # the negatives are read once for the whole batch, and the weights of its rows add up to 1
        batch_size = visitor_rows.shape[0] * self.replicas.count
        return tf.reduce_sum(tf.square(read), axis=1) + tf.reduce_sum(tf.square(negative_rows)) / batch_size


def known_entries(batch: Batch, num_items: int) -> tf.Tensor:
    """Returns [b, H] bool: whether each history entry is a known item, with an index below `num_items`."""
    return batch.is_history & (batch.history < num_items)


def history_without_target(batch: Batch, num_items: int) -> tf.Tensor:
    """Returns [b, H] bool: whether each history entry has an index below `num_items` and is not the row's positive."""
    return known_entries(batch, num_items) & (batch.history != batch.item[:, None])


def valid_rows(batch: Batch, num_items: int, is_entry: tf.Tensor) -> tf.Tensor:
    """Returns [b] bool: whether each row contributes to the loss; False for padding.

    A valid row has an item index below `num_items` and, if H > 0, at least one history entry.

    Args:
      batch: the rows of this replica.
      num_items: number of items that can be positives.
      is_entry: [b, H] bool: whether the model reads the history entry.
    """
    is_valid = batch.is_row & (batch.item < num_items)
    return is_valid & tf.reduce_any(is_entry, axis=1) if is_entry.shape[1] else is_valid


def negative_sampler(
    loss: SampledSoftmaxConfig, dataset: Dataset, config: RunConfig, entries: Callable[[Batch, int], tf.Tensor]
) -> NegativeSampler:
    """Creates a sampler that draws negatives from the items with training events.

    This reads the batches of one epoch, to count how often each item is an in-batch candidate, for the logQ correction.

    Args:
      loss: settings of the loss.
      dataset: the dataset of the run.
      config: settings of the run.
      entries: selects the history entries that the model reads: `known_entries` or `history_without_target`.
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
    """Returns the data type of matrix products: bfloat16 with `mixed_precision`, else float32."""
    return tf.bfloat16 if config.mixed_precision else tf.float32


def example_weights(batch: Batch, config: SampledSoftmaxConfig) -> tf.Tensor:
    """Returns [b] float32: the weight of each row, halved for every `half_life_days` of the row's age.

    The age of a row is the time from it to the newest row in `batch`. If `half_life_days` is None, age has no effect.
    """
    if config.half_life_days is None:
        return batch.weight
    return batch.weight * decay(tf.reduce_max(batch.timestamp_ms) - batch.timestamp_ms, config)


def decay(age_ms: tf.Tensor, config: SampledSoftmaxConfig) -> tf.Tensor:
    """Returns the weight of each age, float32: 0.5 after one half-life. All are 1 if `half_life_days` is None."""
    if config.half_life_days is None:
        return tf.ones(tf.shape(age_ms))
    return tf.pow(0.5, tf.cast(age_ms, tf.float32) / _DAY_MS / config.half_life_days)


def dropout_mask(shape: Sequence[int], rate: float, seed: int, step: tf.Tensor, replica: int) -> tf.Tensor:
    """Returns a mask for inverted dropout: 0 for a share `rate` of the entries, else 1 / (1 - rate).

    See `keep_mask` for the arguments.
    """
    return keep_mask(shape, rate, seed, step, stream=1, replica=replica) / (1 - rate)


def keep_mask(
    shape: Sequence[int], rate: float, seed: int, step: tf.Tensor, *, stream: int, replica: int = 0
) -> tf.Tensor:
    """Returns a replica's part of a random float32 mask: 0 for a share `rate` of the entries, else 1.

    The mask does not depend on the number of replicas.

    Args:
      shape: shape of the replica's part; the first axis is the rows of the replica.
      rate: share of zeros.
      seed: seed of the run.
      step: scalar int64: number of the training step.
      stream: a number that differs between the masks of the same step.
      replica: index of the replica.
    """
    if rate == 0:
        return tf.ones(shape)
    # without folding in the stream, masks would be correlated with each other and with the step's negatives
    key = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), step]), stream)
    generator, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key)
    # Philox (Salmon et al., SC 2011) makes four numbers from each counter value; no two rows share a value
    num_entries = math.prod(shape[1:])
    num_counts = -(-num_entries // _NUMBERS_PER_COUNT)
    uniform = tf.raw_ops.StatelessRandomUniformV2(
        shape=[shape[0], num_counts * _NUMBERS_PER_COUNT],
        key=generator,
        counter=counter + tf.constant([replica * shape[0] * num_counts, 0], tf.uint64),
        alg=tf.random.Algorithm.PHILOX.value,
    )
    return tf.cast(tf.reshape(uniform[:, :num_entries], shape) >= rate, tf.float32)
