"""Two towers over timelines: one embeds a visitor's latest items, the other one embeds the items of the catalogue.

The model knows visitors by their histories, so it also ranks for visitors who were not in training; frequent visitors
may have a vector in addition. Both towers read the same item rows. An item row is the sum of the item's content and,
if the item has training events, its own row; so items without training events are recommended, too. Visitors return to
items, so items of the history get a bonus, the return bonus.

Shapes: B rows of the global batch or queries, b = B / R rows of this replica, H history, J items looked up for
one row (H, or H + 1 with its positive), K in-batch items, N sampled negatives, C = K + N candidates, I items of the
vocabulary, F features of an item, D embedding, W = D + 1 columns of an item row (the last one is the bias), E event
kinds, A classes of event age, S classes of the number of visits since an event; index 0 means an unknown kind or time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from common.report.diagram_box import DiagramBox
from contract.schema import Vocabulary
from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.models import TowersConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import Batch
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import Lookup
from trainer.distributed.replicas import Replicas
from trainer.models.description import NEW_ITEMS_RANK_LAST, ModelDescription, TableShapes, table_box
from trainer.models.interface import UNKNOWN_EVENT, Queries
from trainer.models.item_features import ItemFeatures, ItemRows, read_item_features
from trainer.models.losses import SAMPLED_LOSSES, log_sum
from trainer.models.objectives import (
    Candidates,
    Prepared,
    Tables,
    TrainingModel,
    compute_dtype,
    dropout_mask,
    keep_mask,
    known_entries,
    negative_sampler,
    valid_rows,
)
from trainer.models.similarity import cosines
from trainer.models.sums import add_tensors
from trainer.models.table_rows import TableRows, first_rows
from trainer.models.table_variables import HOST, fill, fill_rows, make_variable
from trainer.runs.checkpoint import Weights

AGES_MS = (30 * 60 * 1000, 24 * 60 * 60 * 1000, 7 * 24 * 60 * 60 * 1000)
"""Limits between the age classes of events: this visit (half an hour is the usual session timeout), today, this week,
earlier."""

VISITS = 4
"""Number of visit classes with separate weights: this visit, the last one, the one before, all earlier ones."""

_NEVER = -1e9

_LEAST_SQUARE = 1e-12
"""Lower limit of the squared length of a vector that is normalised."""

_NEWEST_SHARE = 0.5
"""The newest item's vector is added to the output of the layers with this weight. Validation NDCG@20 on
retailrocket_buyers, preset nn, one seed: .207 at 0, .214 at 0.5, .216 at 1."""

_OUTPUT_GAIN = 0.3
"""Scale of the output layer's initial values; it makes the output small compared with the item vectors. Initial values
of zero give the same NDCG@20, .214."""


def table_rows(model: TowersConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies the tables of the towers; see `models.build.ModelFile`."""
    features, width = read_item_features(dataset), item_width(model)
    rows = {"item": first_rows(dataset, Vocabulary.ITEMS, dataset.num_trained_items, width)}
    if features.width:
        rows["feature"] = TableRows(features.num_features, width, lambda: list(features.names))
    if model.visitor_min_events is not None:
        num_frequent = int(np.count_nonzero(dataset.visitor_counts >= model.visitor_min_events))
        rows["visitor"] = first_rows(dataset, Vocabulary.VISITORS, num_frequent, model.dim)
    return rows


def training_model(
    model: TowersConfig, config: RunConfig, dataset: Dataset, tables: Tables, replicas: Replicas
) -> TrainingModel:
    """Builds the towers and their sampled-softmax objective."""
    if not isinstance(config.loss, SampledSoftmaxConfig):
        raise ValueError(
            f"model.kind={model.kind} cannot be trained with loss.kind={config.loss.kind}; use "
            "loss.kind=sampled_softmax"
        )
    with replicas.strategy.scope():
        dense = make_dense_variables(model, len(dataset.manifest.event_kinds), config.seed)
    objective = NextItemObjective(
        config.loss,
        tables,
        replicas,
        Towers(model, compute_dtype(config)),
        negative_sampler(config.loss, dataset, config, known_entries),
        read_item_features(dataset),
        config.seed,
    )
    return TrainingModel(tables, dense, objective)


def inference_model(model: TowersConfig, _: RunConfig, dataset: Dataset) -> "TowersInference":
    """Builds the model for inference; its weights must be set later."""
    features, is_trained = read_item_features(dataset), dataset.item_counts > 0

    def item_rows(weights: Weights) -> Callable[[slice], np.ndarray]:
        return ItemRows(features, weights.tables["item"], is_trained, weights.tables.get("feature")).read

    rows = table_rows(model, dataset)
    return TowersInference(
        model,
        item_rows=item_rows,
        num_frequent=rows["visitor"].num_rows - 1 if "visitor" in rows else 0,
        num_kinds=len(dataset.manifest.event_kinds),
        item_counts=dataset.item_counts,
    )


def describe(config: RunConfig, *, has_content: bool) -> ModelDescription:
    """Describes the model for its model card; see `models.build.DescribedModelFile`."""
    visitors = (
        f"The model knows a visitor only by the latest {config.history_length} items of the history in the request; a "
        "second stage, if the run has one, reads more items. If the history has no known item, the visitor gets "
        "popular items, even if they were in training. `score` takes no history, so it returns an item's popularity "
        "for every visitor."
    )
    by_content = (
        "Items without training events are ranked by their content in the catalogue: categories, price and properties."
    )
    return ModelDescription(
        "a vector of the visitor's latest items is compared with each item's vector, which includes its content",
        (visitors, by_content if has_content else NEW_ITEMS_RANK_LAST),
    )


def diagram(model: TowersConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    dim, length, item_rows, visitors = model.dim, model.history_length, ["item table"], ["dense, gelu"]
    optional = []
    if "feature" in tables:
        item_rows.append("feature table")
        optional += [DiagramBox("item content", "from the catalogue", 0), table_box("feature", tables, "item content")]
    if "visitor" in tables:
        visitors.append("visitor table")
        optional += [DiagramBox("visitors", "[B]", 0), table_box("visitor", tables, "visitors")]
    return [
        DiagramBox("history", f"[B, {length}] items, kinds, ages", 0),
        DiagramBox("candidates", "[C]", 0),
        table_box("item", tables, "history", "candidates"),
        *optional,
        DiagramBox("attention", f"[B, {length}] → [B, {dim}]", 2, tuple(item_rows), is_trained=True),
        DiagramBox("candidate vectors", f"[C, {dim}]", 2, tuple(item_rows)),
        DiagramBox("dense, gelu", f"{2 * dim} × {2 * dim}, {2 * dim} × {dim}", 3, ("attention",), is_trained=True),
        DiagramBox("visitor vectors", f"[B, {dim}]", 4, tuple(visitors)),
        DiagramBox("return bonuses", f"[B, {length}]", 5, ("dense, gelu",), is_trained=True),
        DiagramBox("cosine × scale", "[B, C] + item bias", 5, ("visitor vectors", "candidate vectors")),
        DiagramBox("score", "[B, C]", 6, ("cosine × scale", "return bonuses")),
    ]


class History(NamedTuple):
    """The H latest events of each of B visitors, newest first."""

    item: tf.Tensor
    """[B, H] item indices; arbitrary where `is_entry` is False."""
    event: tf.Tensor
    """[B, H] 1 + the index of the event kind; 0 for an unknown kind."""
    age: tf.Tensor
    """[B, H] 1 + number of the thresholds AGES_MS that the event's age has reached; 0 for an unknown time."""
    visit: tf.Tensor
    """[B, H] 1: the event was in the current visit, 2: in the one before, …, at most VISITS; 0 for an unknown time."""
    is_entry: tf.Tensor
    """[B, H] bool; False for padding and for items that are not in the vocabulary."""

    @classmethod
    def of(cls, item: tf.Tensor, event: tf.Tensor, age_ms: tf.Tensor, is_entry: tf.Tensor) -> "History":
        """Builds histories.

        Args:
          item: [B, H] item indices, newest first.
          event: [B, H] indices of event kinds; UNKNOWN_EVENT if kind and time are unknown.
          age_ms: [B, H] milliseconds from the event to the query or training row.
          is_entry: [B, H] bool; False for padding and for unknown items.
        """
        since_next = tf.concat([age_ms[:, :1], age_ms[:, 1:] - age_ms[:, :-1]], axis=1)
        visits = tf.cumsum(tf.cast(since_next >= AGES_MS[0], tf.int64), axis=1)
        is_known = tf.not_equal(event, UNKNOWN_EVENT)
        age, visit = 1 + age_of(age_ms), 1 + tf.clip_by_value(visits, 0, VISITS - 1)
        return cls(item, event - UNKNOWN_EVENT, tf.where(is_known, age, 0), tf.where(is_known, visit, 0), is_entry)

    @property
    def is_empty(self) -> tf.Tensor:
        """[B] bool: whether the history has no known item."""
        return ~tf.reduce_any(self.is_entry, axis=1)


def latest(queries: Queries, *, size: int, num_items: int) -> History:
    """Returns the newest events of the queries' histories.

    Args:
      queries: B queries.
      size: the number of entries, H; shorter histories are padded.
      num_items: items with this index or a higher one are unknown; `is_entry` is False for them.
    """
    columns = (queries.history, queries.history_event, queries.history_timestamp_ms)
    position = queries.history_length[:, None] - 1 - tf.range(size, dtype=tf.int64)
    # padded by a column, because all histories may be empty and index 0 must exist
    item, event, timestamp_ms = (
        tf.gather(tf.pad(column, [[0, 0], [0, 1]]), tf.maximum(position, 0), batch_dims=1) for column in columns
    )
    return History.of(
        item, event, queries.timestamp_ms[:, None] - timestamp_ms, (position >= 0) & (item >= 0) & (item < num_items)
    )


def age_of(age_ms: tf.Tensor) -> tf.Tensor:
    """Returns the age class of each event, int64: the number of thresholds AGES_MS that its age has reached."""
    return add_tensors([tf.cast(age_ms >= limit, tf.int64) for limit in AGES_MS])


class DenseWeights(NamedTuple):
    """All weights of the towers except the tables. The order of the fields is that of the checkpoint."""

    position: tf.Tensor
    """[H] added to the attention logit of an entry; selected by its position in the history."""
    age: tf.Tensor
    """[A] added to the attention logit of an entry; selected by its age."""
    visit: tf.Tensor
    """[S] added to the attention logit of an entry; selected by its visit."""
    event: tf.Tensor
    """[E, D] added to the item vector of an entry; selected by its event kind."""
    attention: tf.Tensor
    """[D, D] maps the newest item to the attention query."""
    hidden: tf.Tensor
    """[2D, 2D] hidden layer over the newest item and the attended history."""
    hidden_bias: tf.Tensor
    """[2D] bias of the hidden layer."""
    output: tf.Tensor
    """[2D, D] output layer; its result is added to the attended history."""
    log_scale: tf.Tensor
    """Scalar: logarithm of the factor by which cosines are multiplied."""
    return_position: tf.Tensor
    """[H] part of an entry's return bonus, by its position in the history."""
    return_event: tf.Tensor
    """[E] part of an entry's return bonus, by its event kind."""
    return_age: tf.Tensor
    """[A] part of an entry's return bonus, by its age."""
    return_visit: tf.Tensor
    """[S] part of an entry's return bonus, by its visit."""
    return_hidden: tf.Tensor
    """[2D] maps the hidden layer to the part of the return bonus that all entries of a visitor share."""


def item_width(config: TowersConfig) -> int:
    """Returns the number of columns of the item table."""
    return config.dim + 1


def make_dense_variables(config: TowersConfig, kinds: int, seed: int) -> list[keras.Variable]:
    """Creates variables with the initial values of `DenseWeights`.

    Call this in the strategy's scope if the variables will be trained.

    Args:
      config: settings of the model.
      kinds: number of event kinds of the dataset; E = kinds + 1, because index 0 is the unknown kind.
      seed: seed of the random initial values.
    """
    dim = config.dim
    kinds, ages, visits = kinds + 1, len(AGES_MS) + 2, VISITS + 1  # the first of each is unknown
    generator = np.random.default_rng(seed)

    def normal(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        return generator.normal(0, gain / np.sqrt(rows), (rows, columns))

    initial = DenseWeights(
        position=np.zeros(config.history_length),
        age=np.zeros(ages),
        visit=np.zeros(visits),
        event=np.zeros((kinds, dim)),
        attention=normal(dim, dim),
        hidden=normal(2 * dim, 2 * dim),
        hidden_bias=np.zeros(2 * dim),
        output=normal(2 * dim, dim, gain=_OUTPUT_GAIN),
        log_scale=np.array(np.log(config.initial_scale)),
        return_position=np.zeros(config.history_length),
        return_event=np.zeros(kinds),
        return_age=np.zeros(ages),
        return_visit=np.zeros(visits),
        return_hidden=np.zeros(2 * dim),
    )
    return [
        keras.Variable(value.astype(np.float32), name=name)
        for name, value in zip(DenseWeights._fields, initial, strict=True)
    ]


@dataclass(frozen=True)
class Towers:
    """Computes vectors and scores from table rows and dense weights, for training and inference."""

    config: TowersConfig
    """Settings of the model."""
    compute_dtype: tf.DType = tf.float32
    """Data type of the products of visitor and candidate vectors."""

    def embed_visitors(
        self, dense: DenseWeights, vectors: tf.Tensor, history: History, own: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns two tensors: [B, D] the visitor vectors, and [B] a term to add to all return bonuses of each visitor.

        A score is the dot product of visitor and item vector, plus the item bias, plus any bonuses for history items.

        Args:
          dense: the dense weights.
          vectors: [B, H, D] item rows of the history entries without the bias, not normalised.
          history: the histories.
          own: [B, D] rows of the visitor table; 0 for visitors without a row.
        """
        has_entry = tf.cast(history.is_entry, tf.float32)
        # a product with few rows instead of a gather, whose gradient would add up all entries one by one
        is_event = tf.one_hot(tf.reshape(history.event, [-1]), dense.event.shape[0])
        events = tf.matmul(is_event, dense.event)
        read = (vectors + tf.reshape(events, tf.shape(vectors))) * has_entry[:, :, None]
        newest = tf.gather(read, tf.argmax(has_entry, axis=1), batch_dims=1)
        query = tf.matmul(newest, dense.attention) / np.sqrt(self.config.dim)
        similarity = tf.einsum("bhd,bd->bh", read, query) + dense.position
        attention = add_tensors([similarity, tf.gather(dense.age, history.age), tf.gather(dense.visit, history.visit)])
        share = tf.nn.softmax(tf.where(history.is_entry, attention, _NEVER), axis=1)
        attended = tf.reduce_sum(share[:, :, None] * read, axis=1)  # faster than many small matrix products
        hidden = tf.matmul(tf.concat([newest, attended], axis=1), dense.hidden) + dense.hidden_bias
        hidden = tf.nn.gelu(hidden)
        visitors = add_tensors([attended, _NEWEST_SHARE * newest, tf.matmul(hidden, dense.output), own])
        returning = tf.linalg.matvec(hidden, dense.return_hidden)
        return tf.nn.l2_normalize(visitors, axis=1) * tf.exp(dense.log_scale), returning

    def embed_items(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes item vectors, [..., D], and item biases, [...], from rows of the item table, [..., W]."""
        vectors, biases = self.split_rows(rows)
        return tf.nn.l2_normalize(vectors, axis=-1, epsilon=_LEAST_SQUARE), biases

    def split_rows(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Splits rows [..., W] of the item table into vectors, [..., D], not normalised, and biases, [...]."""
        # the gradient of a split is one concatenation; that of two slices would add two tables of mostly zeros
        vectors, biases = tf.split(rows, [self.config.dim, 1], axis=rows.shape.rank - 1)
        return vectors, biases[..., 0]

    def candidate_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """Returns [B, C]: the score of each candidate for each visitor, without the bonuses for history items.

        Args:
          visitors: [B, D] visitor vectors.
          items: [C, D] vectors of the candidates.
          biases: [C] biases of the candidates.
        """
        product = tf.matmul(tf.cast(visitors, self.compute_dtype), tf.cast(items, self.compute_dtype), transpose_b=True)
        return tf.cast(product, tf.float32) + biases

    def pair_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """Returns [B]: the scores of (visitor, item) pairs, without the bonuses for history items.

        Args:
          visitors: [B, D] visitor vectors.
          items: [B, D] item vectors.
          biases: [B] item biases.
        """
        return tf.reduce_sum(visitors * items, axis=1) + biases

    def bonuses(self, dense: DenseWeights, history: History, returning: tf.Tensor) -> tf.Tensor:
        """Returns [B, H]: the bonuses to add to the scores of the history items; 0 for padding.

        Args:
          dense: the dense weights.
          history: the histories.
          returning: [B] term per visitor that is added to all bonuses, from `embed_visitors`.
        """
        of_entry = [
            tf.gather(dense.return_event, history.event),
            tf.gather(dense.return_age, history.age),
            tf.gather(dense.return_visit, history.visit),
        ]
        bonus = add_tensors(of_entry) + dense.return_position + returning[:, None]
        return tf.where(history.is_entry, bonus, 0.0)


class NextItemInputs(NamedTuple):
    """Inputs of `NextItemObjective.loss`."""

    candidates: Candidates
    """Items to score: the positives of the batch and the negatives."""
    is_excluded: tf.Tensor
    """[b, C] bool: whether each candidate is the row's positive, in its history, or no candidate at all."""
    history: History
    """The histories of this replica's b rows."""
    keep: tf.Tensor
    """[b, H, D] dropout of the item vectors of the histories: 0 for a dropped number, else 1 / (share of numbers that
    are kept)."""
    keep_own: tf.Tensor
    """[bJ + C] for the items of the rows, then for the candidates: 0 if id dropout drops the item's own row, else 1."""
    feature_weight: tf.Tensor
    """[bJ + C, F] weights of the features of the same items."""
    keep_visitor: tf.Tensor
    """[b] 1 if the visitor has a row in the visitor table and dropout keeps it, else 0."""


@dataclass(frozen=True)
class NextItemObjective:
    """Loss of the next item (the positive) against history items, in-batch negatives and sampled negatives.

    History items are candidates of their own row only, without logQ correction. No item is a candidate of a row twice.

    Rows with an unknown positive, or without a known item in their history, are skipped.
    """

    config: SampledSoftmaxConfig
    """Settings of the loss, with the weights of examples."""
    tables: Tables
    """`item`: a row for each item with training events, and one for all others; `feature`, if the catalogue describes
    the items; `visitor`, if visitors have vectors: a row for each frequent visitor, and one for all others."""
    replicas: Replicas
    """All replicas, R."""
    model: Towers
    """Computes scores from table rows."""
    sampler: NegativeSampler
    """Draws the negatives from the items with training events."""
    features: ItemFeatures
    """The content of the items."""
    seed: int
    """Seed of all dropout masks."""

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared[NextItemInputs]:
        is_entry = known_entries(batch, self.sampler.num_items)
        is_valid = valid_rows(batch, self.sampler.num_items, is_entry)
        candidates = Candidates.of_batch(batch, is_valid, self.config, self.sampler, step, self.replicas, replica)
        context = self._drop_context(batch, replica, step)
        history = History.of(batch.history, context, batch.history_age_ms, is_entry)
        entries = candidates.entries(batch)
        items = tf.concat([tf.reshape(entries, [-1]), candidates.items], axis=0)
        feature_weight = tf.gather(self.features.weight, self._clip_to_trained(items))
        shape = [*batch.history.shape, self.model.config.dim]
        own_items = tf.concat([batch.item[:, None], tf.where(is_entry, batch.history, -1)], axis=1)
        inputs = NextItemInputs(
            candidates=candidates,
            is_excluded=candidates.find_rows(own_items) | ~candidates.is_candidate,
            history=history,
            keep=dropout_mask(shape, self.model.config.dropout, self.seed, step, replica),
            keep_own=self._own_row_mask(feature_weight, entries.shape, replica, step),
            feature_weight=feature_weight,
            keep_visitor=self._visitor_mask(batch.visitor, replica, step),
        )
        return Prepared(self._look_up(replica, items, entries.shape.num_elements(), batch.visitor), inputs)

    def _look_up(self, replica: int, items: tf.Tensor, num_entries: int, visitor: tf.Tensor) -> dict[str, Lookup]:
        """Looks up the table rows of items, of the items' features, and of visitors.

        Shapes: `items` [bJ + C], `visitor` [b]; `num_entries` is b × J.
        """
        row = tf.minimum(items, self.sampler.num_items)
        lookups = {"item": self.tables["item"].lookup(replica, row[:num_entries], row[num_entries:])}
        if "feature" in self.tables:
            feature = tf.gather(self.features.feature, self._clip_to_trained(items))
            of_entries, of_candidates = (
                tf.reshape(part, [-1]) for part in (feature[:num_entries], feature[num_entries:])
            )
            lookups["feature"] = self.tables["feature"].lookup(replica, of_entries, of_candidates)
        if "visitor" in self.tables:
            row = tf.minimum(visitor, self.tables["visitor"].rows - 1)
            lookups["visitor"] = self.tables["visitor"].lookup(replica, row)
        return lookups

    def loss(self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: NextItemInputs) -> tf.Tensor:
        weights, history, candidates = DenseWeights(*dense), inputs.history, inputs.candidates
        rows = _item_rows(vectors, inputs)
        entry_rows, candidate_rows = tf.split(rows, [-1, candidates.items.shape[0]])
        history_rows, positive_rows = candidates.split_entries(entry_rows, history.item.shape[1])
        history_vectors, history_biases = self.model.split_rows(history_rows)
        visitor_rows = vectors.get("visitor", tf.zeros([tf.size(inputs.keep_visitor), self.model.config.dim]))
        own_vectors = visitor_rows * inputs.keep_visitor[:, None]
        visitors, returning = self.model.embed_visitors(weights, history_vectors * inputs.keep, history, own_vectors)
        items, biases = self.model.embed_items(candidate_rows)
        bonus = self.model.bonuses(weights, history, returning)
        is_positive = tf.equal(history.item, candidates.positive[:, None]) & history.is_entry
        if positive_rows is None:
            index = candidates.positive_index
            positive = self.model.pair_scores(visitors, tf.gather(items, index), tf.gather(biases, index))
        else:
            positive = self.model.pair_scores(visitors, *self.model.embed_items(positive_rows))
        positive += tf.reduce_sum(tf.where(is_positive, bonus, 0.0), axis=1)
        history_scores, is_repeated = self._score_history(visitors, history_vectors, history_biases, history, bonus)
        losses = SAMPLED_LOSSES[self.config.kind](
            positive,
            self.model.candidate_scores(visitors, items, biases),
            candidates.log_expected_count,
            inputs.is_excluded,
            log_sum(history_scores, is_positive | is_repeated | ~history.is_entry),
        )
        return tf.reduce_sum(candidates.weight * losses)

    def _score_history(
        self, visitors: tf.Tensor, vectors: tf.Tensor, biases: tf.Tensor, history: History, bonus: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores the items of the histories; an item gets the bonuses of all its entries in the history.

        Args:
          visitors: [b, D] visitor vectors.
          vectors: [b, H, D] vectors of the items, not normalised.
          biases: [b, H] biases of the items.
          history: the histories.
          bonus: [b, H] return bonus of each entry.

        Returns:
          Scores [b, H], and [b, H] bool: whether an earlier column of the history has the same item.
        """
        is_same = tf.equal(history.item[:, :, None], history.item[:, None, :]) & history.is_entry[:, None, :]
        # normalising the products instead of the vectors saves several passes over them
        inverse_lengths = tf.math.rsqrt(tf.maximum(tf.reduce_sum(tf.square(vectors), axis=2), _LEAST_SQUARE))
        scores = tf.linalg.matvec(vectors, visitors) * inverse_lengths + biases
        scores += tf.linalg.matvec(tf.cast(is_same, tf.float32), bonus)
        return scores, tf.reduce_any(is_same & _is_earlier_column(history.item.shape[1]), axis=2)

    def _clip_to_trained(self, items: tf.Tensor) -> tf.Tensor:
        """Returns `items`, with the highest trained index for untrained items; masks exclude these from the loss."""
        return tf.minimum(items, self.sampler.num_items - 1)

    def _own_row_mask(
        self, feature_weight: tf.Tensor, entries: Sequence[int], replica: int, step: tf.Tensor
    ) -> tf.Tensor:
        """Returns [bJ + C]: the mask of id dropout; 0 if it drops the item's own row, else 1.

        Items without features are never dropped.

        Args:
          feature_weight: [bJ + C, F] weights of the features of this replica's items.
          entries: (b, J).
          replica: index of this replica.
          step: scalar int64: number of the training step.
        """
        rate, num_candidates = self.model.config.id_dropout, feature_weight.shape[0] - math.prod(entries)
        of_entries = keep_mask(entries, rate, self.seed, step, stream=2, replica=replica)
        of_candidates = keep_mask([1, num_candidates], rate, self.seed, step, stream=5)
        keep = tf.concat([tf.reshape(of_entries, [-1]), of_candidates[0]], axis=0)
        return tf.where(tf.reduce_any(feature_weight > 0, axis=1), keep, 1.0)

    def _drop_context(self, batch: Batch, replica: int, step: tf.Tensor) -> tf.Tensor:
        """Returns [b, H]: the event kinds of the histories; all are UNKNOWN_EVENT in the rows that dropout selects."""
        rate, shape = self.model.config.context_dropout, [batch.item.shape[0], 1]
        keep = keep_mask(shape, rate, self.seed, step, stream=4, replica=replica)
        return tf.where(keep > 0, batch.history_event, UNKNOWN_EVENT)

    def _visitor_mask(self, visitor: tf.Tensor, replica: int, step: tf.Tensor) -> tf.Tensor:
        """Returns [b]: 1 if the visitor has a row in the visitor table and dropout keeps it, else 0."""
        if "visitor" not in self.tables:
            return tf.zeros(visitor.shape)
        rate = self.model.config.visitor_dropout
        keep = keep_mask(visitor.shape, rate, self.seed, step, stream=3, replica=replica)
        return tf.where(visitor < self.tables["visitor"].rows - 1, keep, 0.0)


def _item_rows(vectors: Mapping[str, tf.Tensor], inputs: NextItemInputs) -> tf.Tensor:
    """Returns [bJ + C, W]: per item, its own row (0 if id dropout drops it) plus its weighted feature rows."""
    if "feature" not in vectors:  # id dropout drops no row of an item without features
        return vectors["item"]
    rows = vectors["item"] * inputs.keep_own[:, None]
    features = tf.reshape(vectors["feature"], [*inputs.feature_weight.shape, -1])
    return rows + tf.einsum("nf,nfw->nw", inputs.feature_weight, features)


def _is_earlier_column(size: int) -> tf.Tensor:
    """Returns a [size, size] bool matrix: whether column < row."""
    index = tf.range(size)
    return index[None, :] < index[:, None]


class ScoreParts(NamedTuple):
    """The scores of all items for B queries, in two parts; `catalogue_scores` adds the bonuses to the scores."""

    score: tf.Tensor
    """[B, I] scores without the bonuses for history items."""
    bonus: tf.Tensor
    """[B, H] return bonus that each history entry, newest first, adds to the score of its item; 0 for padding."""
    is_empty: tf.Tensor
    """[B] bool: whether the history has no known item. If so, `TowersInference.popularity` replaces the scores."""


class TowersInference(tf.Module):
    """Trained towers; see `models.interface.InferenceModel`.

    Visitors without a known item in their history get popular items. `pair_scores` gets no histories, so it returns the
    popularity of the items.
    """

    def __init__(
        self,
        config: TowersConfig,
        *,
        item_rows: Callable[[Weights], Callable[[slice], np.ndarray]],
        num_frequent: int,
        num_kinds: int,
        item_counts: np.ndarray,
    ) -> None:
        """Creates the model without weights.

        Args:
          config: settings of the model.
          item_rows: takes trained weights; returns a function that reads the rows [n, W] of a slice of items.
          num_frequent: number of visitors with a row in the visitor table.
          num_kinds: number of event kinds of the dataset.
          item_counts: [I] number of training events of each item.
        """
        super().__init__(name="towers")
        self._model = Towers(config)
        self._item_rows = item_rows
        self._num_items = len(item_counts)
        # normalised once instead of per query; histories need the rows with their original lengths
        self._items = make_variable((self._num_items, config.dim), "items")
        self._biases = make_variable((self._num_items,), "biases")
        self._lengths = make_variable((self._num_items, 1), "lengths")
        # the last row is shared by all visitors that are not frequent
        self._num_frequent = num_frequent
        with tf.device(HOST):
            self._visitors = make_variable((num_frequent + 1, config.dim), "visitors")
        self._dense = [
            make_variable(tuple(variable.shape), variable.name)
            for variable in make_dense_variables(config, num_kinds, seed=0)
        ]
        # the last entry is an unknown item, which is as popular as an item without events
        self._popularity = tf.Variable(np.append(np.log1p(item_counts), 0.0), trainable=False, dtype=tf.float32)

    def fill(self, weights: Weights) -> None:
        read, dim, width = self._item_rows(weights), self._model.config.dim, item_width(self._model.config)
        fill(self._items, lambda rows: self._model.embed_items(tf.constant(read(rows)))[0], width=width)
        fill(self._biases, lambda rows: self._model.embed_items(tf.constant(read(rows)))[1], width=width)
        fill(self._lengths, lambda rows: np.linalg.norm(read(rows)[:, :dim], axis=1, keepdims=True), width=width)
        if "visitor" in weights.tables:
            needed = weights.needed_rows(self._visitors.shape[0])
            fill_rows(self._visitors, weights.tables["visitor"].__getitem__, needed)
            self._visitors[-1].assign(tf.zeros([dim]))  # visitors that are not frequent have their history only
        for variable, weight in zip(self._dense, weights.dense, strict=True):
            variable.assign(weight)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return self.piece_scores(queries)(0, self._num_items)

    @property
    def popularity(self) -> tf.Tensor:
        """[I] log(1 + number of training events): item scores for visitors without a known item in their history."""
        return self._popularity[:-1]

    def score_in_parts(self, queries: Queries) -> ScoreParts:
        """Returns the scores of the catalogue and, separately, the bonuses for history items."""
        visitors, history, bonuses = self._read(queries)
        scores = self._model.candidate_scores(visitors, self._items, self._biases)
        return ScoreParts(scores, tf.where(history.is_entry, bonuses, 0.0), history.is_empty)

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        visitors, history, bonuses = self._read(queries)

        def score(begin: tf.Tensor | int, size: int) -> tf.Tensor:
            piece = slice(begin, begin + size)
            scores = self._model.candidate_scores(visitors, self._items[piece], self._biases[piece])
            column = history.item - tf.cast(begin, history.item.dtype)
            entries = tf.where(history.is_entry & (column >= 0) & (column < size))
            index = tf.stack([entries[:, 0], tf.gather_nd(column, entries)], axis=1)
            scores = tf.tensor_scatter_nd_add(scores, index, tf.gather_nd(bonuses, entries))
            return tf.where(history.is_empty[:, None], self._popularity[piece], scores)

        return score

    def _read(self, queries: Queries) -> tuple[tf.Tensor, History, tf.Tensor]:
        """Returns the visitor vectors, the latest H entries of each history, and the return bonuses of these entries.

        The vectors are [B, D]. The bonuses are [B, H] and include the setting `return_bonus`, even at padding.
        """
        config, dense = self._model.config, DenseWeights(*(tf.convert_to_tensor(weight) for weight in self._dense))
        history = latest(queries, size=config.history_length, num_items=self._num_items)
        item = tf.where(history.is_entry, history.item, 0)
        vectors = tf.gather(self._items, item) * tf.gather(self._lengths, item)
        own = tf.gather(self._visitors, tf.clip_by_value(queries.visitor, 0, self._num_frequent))
        visitors, returning = self._model.embed_visitors(dense, vectors, history, own)
        return visitors, history, self._model.bonuses(dense, history, returning) + config.return_bonus

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        scores = tf.gather(self._popularity, tf.minimum(item, self._num_items))
        return tf.broadcast_to(scores, tf.shape(visitor))

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        return cosines(self._items, item)
