"""The two towers in training: the item that came next against all others, estimated from samples.

Shapes: B rows of the global batch, b = B / R rows of this replica, H history, N drawn items, C = B + N candidates,
D embedding, F features of an item, W columns of a row of an item.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from common.report.diagram_box import DiagramBox
from contract.schema import Vocabulary
from trainer.config.run import RunConfig, SampledSoftmaxConfig, TowersConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import Batch
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import CHUNK_ROWS, Lookup
from trainer.distributed.replicas import Replicas
from trainer.models import towers
from trainer.models.description import NEW_ITEMS_RANK_LAST, ModelDescription, TableShapes, table_box
from trainer.models.item_features import ItemFeatures, read_item_features
from trainer.models.losses import SAMPLED_LOSSES
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
    own_slice,
    valid_rows,
)
from trainer.models.table_rows import TableRows, first_rows
from trainer.models.towers import DenseWeights, History, Towers, TowersInference
from trainer.runs.checkpoint import Table, Weights


def table_rows(model: TowersConfig, dataset: Dataset) -> dict[str, TableRows]:
    """As `NextItemObjective` reads them; see `models.build.ModelFile`."""
    contents, width = read_item_features(dataset), towers.item_width(model)
    rows = {"item": first_rows(dataset, Vocabulary.ITEMS, dataset.num_trained_items(), width)}
    if contents.width:
        rows["feature"] = TableRows(contents.num_features, width, lambda: list(contents.names))
    if model.visitor_min_events is not None:
        num_frequent = int(np.count_nonzero(dataset.visitor_counts() >= model.visitor_min_events))
        rows["visitor"] = first_rows(dataset, Vocabulary.VISITORS, num_frequent, model.dim)
    return rows


def training_model(
    model: TowersConfig, config: RunConfig, dataset: Dataset, tables: Tables, replicas: Replicas
) -> TrainingModel:
    """The towers and their softmax."""
    if not isinstance(config.loss, SampledSoftmaxConfig):
        raise ValueError("the towers have no objective but the softmax")
    with replicas.strategy.scope():
        dense = towers.make_dense_variables(model, config.seed)
    objective = NextItemObjective(
        config.loss,
        tables,
        replicas.count,
        Towers(model, compute_dtype(config)),
        negative_sampler(config.loss, dataset, config, known_entries),
        read_item_features(dataset),
        config.seed,
    )
    return TrainingModel(tables, dense, objective)


def inference_model(model: TowersConfig, _: RunConfig, dataset: Dataset) -> TowersInference:
    """The towers to be filled; an item is its own row, if training knows it, plus its content."""
    contents, num_trained = read_item_features(dataset), dataset.num_trained_items()

    def item_rows(weights: Weights) -> Callable[[slice], np.ndarray]:
        return _ItemRows(contents, weights.tables["item"], num_trained, weights.tables.get("feature")).read

    rows = table_rows(model, dataset)
    return TowersInference(
        model,
        item_rows=item_rows,
        num_frequent=rows["visitor"].num_rows - 1 if "visitor" in rows else 0,
        item_counts=dataset.item_counts(),
    )


def describe(config: RunConfig, *, has_content: bool) -> ModelDescription:
    """See `models.build.DescribedModelFile`."""
    visitors = (
        f"Visitors are known by the latest {config.history_length} items of the history in the request; earlier items "
        "are ignored. Visitors without a known item in it get popular items, even if they were in training. `score` "
        "takes no history, so it returns an item's popularity for every visitor."
    )
    by_content = (
        "Items without training events are ranked by their content in the catalogue: categories, price and properties."
    )
    return ModelDescription(
        "the visitor's latest items against the catalogue, where each item has a vector of its own plus its content",
        (visitors, by_content if has_content else NEW_ITEMS_RANK_LAST),
    )


def diagram(model: TowersConfig, tables: TableShapes) -> list[DiagramBox]:
    """See `models.build.DescribedModelFile`."""
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


class _ItemRows:
    """Rows [I, W] of a trained model's items, put together as they are asked for."""

    def __init__(self, contents: ItemFeatures, own: Table, num_trained: int, features: Table | None) -> None:
        self._contents, self._own, self._num_trained = contents, own, num_trained
        self._features = None if features is None else features[: features.shape[0]]
        least = [own[start : start + CHUNK_ROWS][:, -1].min() for start in range(0, num_trained, CHUNK_ROWS)]
        self._least_bias = min(least, default=np.float32(0))
        self._has_content = np.any(contents.weight > 0, axis=1)

    def read(self, items: slice) -> np.ndarray:
        """[n, W] of items start … stop - 1."""
        start, stop, _ = items.indices(len(self._has_content))
        rows = np.zeros((stop - start, self._own.shape[1]), np.float32)
        if self._features is not None:
            rows += self._contents.rows(self._features, items)
        own = self._own[start : min(stop, self._num_trained)]
        rows[: len(own)] += own
        # of the others nothing is known: as unpopular as the least popular item
        rows[len(own) :][~self._has_content[start + len(own) : stop], -1] = self._least_bias
        return rows


class _Inputs(NamedTuple):
    """Inputs of `NextItemObjective.loss`.

    candidates       what the rows are scored against
    history          of the rows, [b, H]
    keep             [b, H, D] 0 for a hidden entry of a history vector, else 1 / share kept
    has_own          [bH + C] 1 where an item of a history, or a candidate, shows its own row, else 0
    feature_weight   [bH + C, F] of their features
    has_vector       [b] 1 where the visitor shows his own vector, else 0
    """

    candidates: Candidates
    history: History
    keep: tf.Tensor
    has_own: tf.Tensor
    feature_weight: tf.Tensor
    has_vector: tf.Tensor


@dataclass(frozen=True)
class NextItemObjective:
    """Cross entropy of the next item against those of the history, of the global batch, and drawn ones.

    The items of a row's own history compete with certainty, so they are not corrected, and the same items among the
    batch's and the drawn ones are excluded for that row: counted twice, or corrected as if drawn, they would teach the
    model to return too rarely or too often. A row whose item, or whose whole history, is not in the vocabulary neither
    counts nor is a candidate.

    tables      "item": a row for each item that training knows, and one more for all others; "feature", where the
                catalogue tells of items; "visitor", where visitors have vectors: one for each, and one for all others
    sampler     of the items that training knows: the first ones of the vocabulary
    """

    config: SampledSoftmaxConfig
    tables: Tables
    replicas: int
    model: Towers
    sampler: NegativeSampler
    contents: ItemFeatures
    seed: int

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:
        is_entry = known_entries(batch, self.sampler.num_items)
        is_counted = valid_rows(batch, self.sampler.num_items, is_entry)
        own = own_slice(batch, replica, self.replicas)
        candidates = Candidates.of_batch(batch, is_counted, self.config, self.sampler, step, own)
        history = History.of(batch.history, batch.history_event, batch.history_age_ms, is_entry)
        items = tf.concat([tf.reshape(batch.history, [-1]), candidates.items], axis=0)
        used = _used(batch.history.shape, candidates.items.shape[0], own)
        feature_weight = tf.gather(self.contents.weight, self._trained(tf.gather(items, used)))
        shape = [*batch.history.shape, self.model.config.dim]
        inputs = _Inputs(
            candidates=candidates,
            history=History(*(column[own] for column in history)),
            keep=dropout_mask(shape, self.model.config.dropout, self.seed, step, own),
            has_own=self._shows_own(feature_weight, items.shape[0], used, step),
            feature_weight=feature_weight,
            has_vector=self._shows_vector(batch.visitor, own, step),
        )
        return Prepared(self._read(replica, items, batch.history.shape.num_elements(), batch.visitor), inputs)

    def _read(self, replica: int, items: tf.Tensor, num_entries: int, visitor: tf.Tensor) -> dict[str, Lookup]:
        """The rows of items, first those of the histories [BH], and of their features, and of visitors [B]."""
        row = tf.minimum(items, self.sampler.num_items)
        lookups = {"item": self.tables["item"].lookup(replica, row[:num_entries], row[num_entries:])}
        if "feature" in self.tables:
            feature = tf.gather(self.contents.feature, self._trained(items))
            of_entries, of_candidates = (
                tf.reshape(part, [-1]) for part in (feature[:num_entries], feature[num_entries:])
            )
            lookups["feature"] = self.tables["feature"].lookup(replica, of_entries, of_candidates)
        if "visitor" in self.tables:
            row = tf.minimum(visitor, self.tables["visitor"].rows - 1)
            lookups["visitor"] = self.tables["visitor"].lookup(replica, row)
        return lookups

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        given, weights = _Inputs(*inputs), DenseWeights(*dense)
        history, sampled = given.history, given.candidates
        rows = _item_rows(vectors, given)
        num_entries = history.item.shape[0] * history.item.shape[1]
        history_rows = tf.reshape(rows[:num_entries], [*history.item.shape, -1])
        read = history_rows[..., : self.model.config.dim] * given.keep
        visitor_rows = vectors.get("visitor", tf.zeros([tf.size(given.has_vector), self.model.config.dim]))
        own_vectors = visitor_rows * given.has_vector[:, None]
        visitors, returning = self.model.place_visitors(weights, read, history, own_vectors)
        items, biases = self.model.place_items(rows[num_entries:])
        scores = self.model.candidate_scores(visitors, items, biases)
        bonus = self.model.bonuses(weights, history, returning)
        own_scores, is_repeated = self._score_history(visitors, history_rows, history, bonus)
        is_chosen = tf.equal(history.item, sampled.chosen[:, None]) & history.is_entry
        positive = tf.gather(scores, sampled.chosen_place, batch_dims=1)
        positive += tf.reduce_sum(tf.where(is_chosen, bonus, 0.0), axis=1)
        is_hit = tf.equal(sampled.chosen[:, None], sampled.items[None, :]) | _is_among(sampled.items, history)
        losses = SAMPLED_LOSSES[self.config.kind](
            positive,
            tf.concat([scores, own_scores], axis=1),
            tf.concat(
                [tf.broadcast_to(sampled.log_expected_count, tf.shape(scores)), tf.zeros_like(own_scores)], axis=1
            ),
            tf.concat([is_hit | ~sampled.is_candidate, is_chosen | is_repeated | ~history.is_entry], axis=1),
        )
        return tf.reduce_sum(sampled.weight * losses)

    def _score_history(
        self, visitors: tf.Tensor, rows: tf.Tensor, history: History, bonus: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[b, H] scores of the items of histories, and [b, H] bool: an earlier column has the same item.

        An item that stands in a history twice has both bonuses [b, H], and is to compete once.
        """
        is_same = tf.equal(history.item[:, :, None], history.item[:, None, :]) & history.is_entry[:, None, :]
        items, biases = self.model.place_items(rows)
        scores = tf.einsum("bd,bhd->bh", visitors, items) + biases
        scores += tf.einsum("bij,bj->bi", tf.cast(is_same, tf.float32), bonus)
        return scores, tf.reduce_any(is_same & _is_earlier_column(history.item.shape[1]), axis=2)

    def _trained(self, items: tf.Tensor) -> tf.Tensor:
        """The items themselves, and for those that training does not know, which count nowhere, any that it does."""
        return tf.minimum(items, self.sampler.num_items - 1)

    def _shows_own(self, feature_weight: tf.Tensor, num_items: int, used: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """[bH + C] of the items at the places `used` of all; an item without features always shows its own row."""
        shown = keep_mask([1, num_items], self.model.config.id_dropout, self.seed, step, stream=2)[0]
        return tf.where(tf.reduce_any(feature_weight > 0, axis=1), tf.gather(shown, used), 1.0)

    def _shows_vector(self, visitor: tf.Tensor, own: slice, step: tf.Tensor) -> tf.Tensor:
        """[b]."""
        if "visitor" not in self.tables:
            return tf.zeros(visitor[own].shape)
        shown = keep_mask(visitor.shape, self.model.config.visitor_dropout, self.seed, step, stream=3, rows=own)
        return tf.where(visitor[own] < self.tables["visitor"].rows - 1, shown, 0.0)


def _used(shape: Sequence[int], num_candidates: int, own: slice) -> tf.Tensor:
    """Places in the items of histories of `shape` [B, H] and the candidates behind them that the rows `own` use."""
    rows, length = shape
    candidates = tf.range(rows * length, rows * length + num_candidates)
    return tf.concat([tf.range(own.start * length, own.stop * length), candidates], axis=0)


def _item_rows(vectors: Mapping[str, tf.Tensor], given: _Inputs) -> tf.Tensor:
    """[bH + C, W]: each item's own row, where it shows, plus its content."""
    rows = vectors["item"] * given.has_own[:, None]
    if "feature" not in vectors:
        return rows
    features = tf.reshape(vectors["feature"], [*given.feature_weight.shape, -1])
    return rows + tf.einsum("nf,nfw->nw", given.feature_weight, features)


def _is_earlier_column(size: int) -> tf.Tensor:
    """[H, H] bool: True where the column comes before the row."""
    place = tf.range(size)
    return place[None, :] < place[:, None]


def _is_among(candidates: tf.Tensor, history: History) -> tf.Tensor:
    """[b, C] bool: the candidate is in the row's history."""
    item = tf.where(history.is_entry, history.item, -1)
    found = tf.equal(item[:, :1], candidates[None, :])
    for place in range(1, item.shape[1]):  # [b, C, H] at once would be ten times the scores
        found |= tf.equal(item[:, place, None], candidates[None, :])
    return found
