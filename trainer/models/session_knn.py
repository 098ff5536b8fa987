"""Session kNN: ranks the items of the most similar training timelines (V-SKNN: Ludewig and Jannach, UMUAI 2018).

A timeline t (the training events of a visitor) has n_t items, and item i is in n_i timelines. The age of an entry of a
history is the number of later entries. Then the similarity of t to the history is:

    s_t = n_t ** -length_power × Σ n_i ** -item_power × (1 + age) ** -recency_power

The sum is over the history entries with an item i that is in timeline t.

A visitor's score of an item is the sum of s_t over those of the K most similar timelines that contain the item.
Nothing is learnt by gradients: `solver=count` stores the items of the timelines, see `training.count`.

Shapes: B queries, T training timelines (one per visitor), N (timeline, item) pairs, I items of the vocabulary, K most
similar timelines of a query.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from common.report.diagram_box import DiagramBox
from trainer.config.models import SessionKnnConfig, SessionKnnPowers
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.models.description import KNOWN_BY_HISTORY, NEW_ITEMS_RANK_LAST, ModelDescription, TableShapes, table_box
from trainer.models.history_entries import Entries, latest_entries
from trainer.models.interface import Queries
from trainer.models.similar_timelines import TimelineLists, sampled_entries
from trainer.models.table_rows import CountedRows, RowCounter, TableRows, check_item_indices
from trainer.models.table_variables import HOST, make_variable
from trainer.runs.checkpoint import Weights


def table_rows(model: SessionKnnConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies two tables of one column each; see `models.build.ModelFile`.

    A row of `item` has the item index of one (timeline, item) pair; rows at the end may be unused. A row of `length`
    has the number of items of one timeline.

    Raises:
      ValueError: the tables cannot store the indices of so many items.
    """
    check_item_indices(dataset, "session kNN")
    num_timelines = dataset.max_training_timelines
    num_entries = min(dataset.max_training_rows, num_timelines * model.max_items)
    return {"item": _numbered_rows(num_entries), "length": _numbered_rows(num_timelines)}


def _numbered_rows(count: int) -> TableRows:
    return TableRows(count, 1, lambda: [str(number) for number in range(count)])


def inference_model(model: SessionKnnConfig, _: RunConfig, dataset: Dataset) -> "SessionKnnInference":
    """Builds the model for inference; its weights must be set later."""
    rows = table_rows(model, dataset)
    return SessionKnnInference(model, dataset.item_counts, rows["length"].num_rows, rows["item"].num_rows)


def describe(config: RunConfig, *, has_content: bool) -> ModelDescription:  # noqa: ARG001 (content is not used)
    """Describes the model for its model card; see `models.build.DescribedModelFile`."""
    principle = "the training timelines most similar to the history add their similarities to the scores of their items"
    return ModelDescription(principle, (KNOWN_BY_HISTORY, NEW_ITEMS_RANK_LAST))


def diagram(model: SessionKnnConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    return [
        DiagramBox("history", f"[B, ≤ {model.max_entries}]", 0),
        table_box("item", tables, "history"),
        table_box("length", tables, "history"),
        DiagramBox("weights by age", "[B, H]", 1, ("history",)),
        DiagramBox(
            "similar timelines", f"[B, {model.num_neighbours}]", 2, ("item table", "length table", "weights by age")
        ),
        DiagramBox("sum over the timelines", "[B, I]", 3, ("similar timelines",)),
        DiagramBox("score", "[B, I]", 4, ("sum over the timelines",)),
    ]


def row_counter(model: SessionKnnConfig, baskets: sp.csr_matrix) -> RowCounter:
    """Returns a function that computes the table rows of one replica; see `models.build.CountedModelFile`.

    `CountedRows.total` counts all (timeline, item) pairs. `CountedRows.kept` counts each item only in its latest
    `max_timelines` timelines.

    Args:
      model: settings of the model.
      baskets: [T, I] items of the timelines, latest timeline first.
    """

    def count(_: int, replica: int, num_replicas: int) -> Iterator[CountedRows]:
        is_sampled = sampled_entries(baskets, model.max_timelines)[replica::num_replicas]
        columns = {"item": baskets.indices, "length": np.diff(baskets.indptr)}
        tables = {name: column[replica::num_replicas, None].astype(np.float32) for name, column in columns.items()}
        yield CountedRows(tables, float(is_sampled.sum()), len(is_sampled))

    return count


def count_session_knn(model: SessionKnnConfig, baskets: sp.csr_matrix, combination: int) -> Weights:
    """Returns the weights of a session kNN.

    Args:
      model: settings of the model.
      baskets: [T, I] items of the timelines, latest timeline first.
      combination: index in `model.combinations` of the exponents to use.
    """
    (rows,) = row_counter(model, baskets)(combination, 0, 1)
    return Weights(rows.tables, [np.array(model.combinations[combination], np.float32)])


class SessionKnnInference(tf.Module):
    """A session kNN for inference; see `models.interface.InferenceModel`.

    Items that are in none of the most similar timelines rank last, by popularity.
    """

    def __init__(self, config: SessionKnnConfig, item_counts: np.ndarray, num_timelines: int, num_entries: int) -> None:
        """Creates the model without weights.

        Args:
          config: settings of the model.
          item_counts: [I] number of training events of each item.
          num_timelines: maximum number of timelines.
          num_entries: maximum number of (timeline, item) pairs.
        """
        super().__init__(name=config.kind)
        self._num_items, self._max_entries = len(item_counts), config.max_entries
        with tf.device(HOST):
            self._timelines = TimelineLists(config, self._num_items, num_timelines, num_entries)
            self._item_weights = make_variable((self._num_items,), "item_weights")
        self._powers = make_variable((len(SessionKnnPowers._fields),), "powers")
        # below all sums of similarities, which are positive; the last entry is an unknown item
        popularity = np.append(item_counts, 0) / (item_counts.max(initial=0) + 1.0) - 1
        self._popularity = tf.Variable(popularity, trainable=False, dtype=tf.float32, name="popularity")

    def fill(self, weights: Weights) -> None:
        powers = SessionKnnPowers(*weights.dense[0])
        lengths = weights.tables["length"][0 : weights.tables["length"].shape[0]].ravel().astype(np.int64)
        splits = np.concatenate([[0], np.cumsum(lengths)])
        items = weights.tables["item"][0 : splits[-1]].ravel().astype(np.int32)
        baskets = sp.csr_matrix((np.ones(len(items), np.float32), items, splits), (len(lengths), self._num_items))
        self._timelines.fill(baskets, np.maximum(lengths, 1).astype(np.float32) ** -powers.length)
        counts = np.maximum(np.bincount(items, minlength=self._num_items), 1)
        self._item_weights.assign(counts.astype(np.float32) ** -powers.item)
        self._powers.assign(weights.dense[0])

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        recency = self._powers[SessionKnnPowers._fields.index("recency")]
        entries = latest_entries(queries, self._max_entries, self._num_items, recency)
        entries = entries._replace(weight=tf.gather(self._item_weights, entries.item) * entries.weight)
        sums = self._timelines.item_sums(entries, tf.shape(queries.history)[0])
        return tf.where(sums > 0, sums, self._popularity[:-1])

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        scores = tf.gather(self._popularity, tf.minimum(item, self._num_items))
        return tf.broadcast_to(scores, tf.shape(visitor))

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        count = tf.size(item)
        entries = Entries(tf.range(count, dtype=tf.int64), item, tf.ones_like(item, tf.float32))
        return self._timelines.item_sums(entries, count)
