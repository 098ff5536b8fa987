"""The exported module: a trained model that takes and returns raw ids.

It ranks with the functions of the evaluator, so the served lists equal the evaluated ones.

Shapes: B queries, H entries of the longest history, K items of the longest list, I items of the vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from contract.manifest import VocabularyInfo
from trainer.models.interface import UNKNOWN_EVENT, Queries, ServedModel
from trainer.models.top_items import top_k
from trainer.ranking.topk import hide, visible_scores, withhold

_VISITOR_ID = tf.TensorSpec([None], tf.string, "visitor_id")
_HISTORY = tf.TensorSpec([None, None], tf.string, "history")
_ITEM_ID = tf.TensorSpec([None], tf.string, "item_id")
# of any shape: with one value per query, a server can merge requests into one batch; a scalar is simpler to call
_K = tf.TensorSpec(None, tf.int32, "k")
_EXCLUDE_SEEN = tf.TensorSpec(None, tf.bool, "exclude_seen")


class ServingModel(tf.Module):
    """A TensorFlow module with the signatures of an export. Inputs and outputs are ids of visitors and items.

    It recommends only items on offer. For unknown visitors, some models rank by the history in the request, others by
    popularity. Unknown items in a history are ignored.
    """

    def __init__(
        self,
        model: ServedModel,
        *,
        visitors_file: str,
        visitors: VocabularyInfo,
        items_file: str,
        items: VocabularyInfo,
        event_kinds: Sequence[str],
        is_offered: np.ndarray,
    ):
        """Loads the vocabularies from local files with one id per line; they become assets of the SavedModel.

        Args:
          model: the trained model.
          visitors_file: file of the visitor vocabulary.
          visitors: size of the visitor vocabulary.
          items_file: file of the item vocabulary.
          items: size of the item vocabulary.
          event_kinds: event kinds of the dataset; the allowed values of `history_event`.
          is_offered: [I] bool: whether an item is on offer; `refresh` replaces these values in the SavedModel.
        """
        super().__init__()
        self._model = model
        self._num_items, self._event_kinds = items.size, list(event_kinds)
        self._visitor_index = _index_table(visitors_file, visitors)
        self._item_index = _index_table(items_file, items)
        self._item_id = _id_table(items_file)
        self.is_offered = tf.Variable(is_offered, trainable=False, dtype=tf.bool, name="is_offered")

    @tf.function(input_signature=[_VISITOR_ID, _HISTORY, _K, _EXCLUDE_SEEN], autograph=False)
    def recommend(
        self, visitor_id: tf.Tensor, history: tf.Tensor, k: tf.Tensor, exclude_seen: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns the best items on offer for each visitor.

        Args:
          visitor_id: [B] string; any unknown id, such as '', if only the `history` is known.
          history: [B, H] string, items of the visitor's events without kinds and times, oldest first; '' is padding.
          k: int32, length of the lists, from 1 to I: a scalar, or [B].
          exclude_seen: bool, whether to exclude the items of `history`: a scalar, or [B].

        Returns:
          `item_id` [B, K] string, best first, and `score` [B, K] float32, where K is the largest `k`. Shorter lists are
          padded with '' and -inf.
        """
        event = tf.fill(tf.shape(history), tf.constant(UNKNOWN_EVENT, tf.int64))
        return self._recommend(self._queries(visitor_id, history, event, tf.zeros_like(event)), k, exclude_seen)

    @tf.function(
        input_signature=[
            _VISITOR_ID,
            _HISTORY,
            tf.TensorSpec([None, None], tf.string, "history_event"),
            tf.TensorSpec([None, None], tf.int64, "history_age_ms"),
            _K,
            _EXCLUDE_SEEN,
        ],
        autograph=False,
    )
    def recommend_events(
        self,
        visitor_id: tf.Tensor,
        history: tf.Tensor,
        history_event: tf.Tensor,
        history_age_ms: tf.Tensor,
        k: tf.Tensor,
        exclude_seen: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        """Like `recommend`, but with the kinds and times of the events of the history.

        Args:
          visitor_id: as in `recommend`.
          history: as in `recommend`.
          history_event: [B, H] string, event kinds of the dataset; ignored at padding.
          history_age_ms: [B, H] int64, milliseconds since each event, at least 0; ignored at padding. If the
            latest event is at least half an hour old, a blend of models uses its weights for returning visitors.
          k: as in `recommend`.
          exclude_seen: as in `recommend`.
        """
        shapes = [_check_shape(history_event, history, "event"), _check_shape(history_age_ms, history, "age_ms")]
        with tf.control_dependencies(shapes):
            is_kind, is_padding = tf.equal(history_event[:, :, None], self._event_kinds), history == ""
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(tf.reduce_any(is_kind, axis=2) | is_padding),
                [
                    f"history_event must be one of {', '.join(self._event_kinds)} for each item of history; got",
                    history_event,
                ],
            ),
            tf.debugging.Assert(
                tf.reduce_all((history_age_ms >= 0) | is_padding),
                ["history_age_ms must be at least 0 for each item of history; got", history_age_ms],
            ),
        ]
        with tf.control_dependencies(checks):
            queries = self._queries(visitor_id, history, tf.argmax(is_kind, axis=2), history_age_ms)
        return self._recommend(queries, k, exclude_seen)

    @tf.function(input_signature=[_VISITOR_ID, _ITEM_ID], autograph=False)
    def score(self, visitor_id: tf.Tensor, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `score` [B] float32 of each (visitor, item) pair.

        Args:
          visitor_id: [B] string.
          item_id: [B] string.
        """
        same_size = tf.debugging.assert_equal(
            tf.shape(visitor_id)[0],
            tf.shape(item_id)[0],
            message="visitor_id and item_id must have the same length, one pair per position; repeat the shorter one",
        )
        with tf.control_dependencies([same_size]):  # a single visitor would be broadcast
            visitor, item = self._visitor_index.lookup(visitor_id), self._item_index.lookup(item_id)
        return {"score": self._model.pair_scores(visitor, item)}

    @tf.function(input_signature=[_ITEM_ID, _K], autograph=False)
    def similar_items(self, item_id: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the most similar items on offer for each item, without the item itself.

        Args:
          item_id: [B] string; for unknown ids, the result is popular items with score 0.
          k: length of the lists, as in `recommend`.

        Returns:
          `item_id` and `score` [B, K], as in `recommend`; the score is the model's similarity.
        """
        item = self._item_index.lookup(item_id)
        is_known = item < self._num_items
        similarities = self._model.item_similarities(tf.where(is_known, item, 0))
        # ties are in vocabulary order: most popular first
        scores = withhold(tf.where(is_known[:, None], similarities, 0.0), self.is_offered)
        return self._best(hide(scores, item[:, None], tf.ones_like(item)), k)

    def _recommend(self, queries: Queries, k: tf.Tensor, exclude_seen: tf.Tensor) -> dict[str, tf.Tensor]:
        is_seen_hidden = _per_query(exclude_seen, queries.visitor, "exclude_seen")
        scores = visible_scores(self._model, queries, is_seen_hidden, self.is_offered)
        return self._best(scores, k)

    def _best(self, scores: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `item_id` and `score`, both [B, K]: the best items by `scores`, [B, I]. K is the largest `k`."""
        k = _per_query(k, scores, "k")
        message = f"k must be from 1 to {self._num_items}, the number of items in the catalogue; got"
        in_range = tf.debugging.Assert(tf.reduce_all((k >= 1) & (k <= self._num_items)), [message, k])
        with tf.control_dependencies([in_range]):
            longest = tf.reduce_max(tf.concat([k, [1]], axis=0))  # without queries, k is empty
        top = top_k(scores, longest)
        score = tf.where(tf.sequence_mask(k, longest), top.score, -float("inf"))
        is_item = score > -float("inf")
        return {"item_id": tf.where(is_item, self._item_id.lookup(top.item), ""), "score": score}

    def _queries(self, visitor_id: tf.Tensor, history: tf.Tensor, event: tf.Tensor, age_ms: tf.Tensor) -> Queries:
        """Builds queries at time 0, so events have the time `-age_ms`.

        Args:
          visitor_id: [B] string.
          history: [B, H] string; '' is padding, at any position.
          event: [B, H] int64 indices of the event kinds.
          age_ms: [B, H] int64 ages of the events.
        """
        same_size = tf.debugging.assert_equal(
            tf.shape(visitor_id)[0],
            tf.shape(history)[0],
            message="history must have a row for each visitor_id; use '' for an empty history",
        )
        is_padding = history == ""
        # padding may also be on the left or in the middle
        order = tf.argsort(tf.cast(is_padding, tf.int32), axis=1, stable=True)
        with tf.control_dependencies([same_size]):
            columns = (self._item_index.lookup(history), event, -age_ms)
        item, event, timestamp_ms = (tf.gather(column, order, batch_dims=1) for column in columns)
        return Queries(
            visitor=self._visitor_index.lookup(visitor_id),
            history=item,
            history_length=tf.math.count_nonzero(~is_padding, axis=1),
            history_event=event,
            history_timestamp_ms=timestamp_ms,
            timestamp_ms=tf.zeros(tf.shape(visitor_id), tf.int64),
        )


def _per_query(values: tf.Tensor, queries: tf.Tensor, name: str) -> tf.Tensor:
    """Returns `values` as [B], one value per row of `queries`; a single value is repeated.

    Error messages mention `name`, the name of the input.
    """
    flat, count = tf.reshape(values, [-1]), tf.shape(queries)[0]
    message = f"{name} must have one value, or one for each query"
    is_valid = tf.debugging.Assert((tf.size(flat) == 1) | (tf.size(flat) == count), [message, tf.shape(values)])
    with tf.control_dependencies([is_valid]):
        return tf.broadcast_to(flat, [count])


def _check_shape(column: tf.Tensor, history: tf.Tensor, name: str) -> tf.Operation:
    message = f"history_{name} must have the same shape as history"
    return tf.debugging.assert_equal(tf.shape(column), tf.shape(history), message=message)


def _index_table(path: str, vocabulary: VocabularyInfo) -> tf.lookup.StaticVocabularyTable:
    """Returns a table that maps ids to indices; an unknown id is hashed to a bucket's index, as in preprocessing."""
    indices = tf.lookup.TextFileInitializer(
        path,
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        vocab_size=vocabulary.size,
    )
    return tf.lookup.StaticVocabularyTable(indices, max(vocabulary.oov_buckets, 1))


def _id_table(path: str) -> tf.lookup.StaticHashTable:
    """Returns a table that maps indices to ids; '' for an index outside the vocabulary."""
    ids = tf.lookup.TextFileInitializer(
        path,
        key_dtype=tf.int64,
        key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        value_dtype=tf.string,
        value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    return tf.lookup.StaticHashTable(ids, default_value="")
