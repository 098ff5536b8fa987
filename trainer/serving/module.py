"""The module that is exported: a trained model behind raw ids.

It ranks through the same functions as the evaluator, so that what is served is what was measured.

Shapes: B queries, H history, K list, I items of the vocabulary, D embedding.
"""

import tensorflow as tf

from contract.manifest import VocabularyInfo
from contract.schema import EVENT_KINDS
from trainer.models.interface import InferenceModel, Queries
from trainer.ranking.topk import TopItems, hide, top_k, visible_scores

_VISITOR_ID = tf.TensorSpec([None], tf.string, "visitor_id")
_HISTORY = tf.TensorSpec([None, None], tf.string, "history")
_K = tf.TensorSpec([], tf.int32, "k")
_EXCLUDE_SEEN = tf.TensorSpec([], tf.bool, "exclude_seen")


class ServingModel(tf.Module):
    """Answers by id; ids that training never saw are answered, not refused.

    An unknown visitor is answered from his history by models that can, else as the model answers visitors it does not
    know, by popular items; an unknown item is left out of histories and has popular items as its similar ones.
    """

    def __init__(
        self,
        model: InferenceModel,
        *,
        visitors_file: str,
        visitors: VocabularyInfo,
        items_file: str,
        items: VocabularyInfo,
    ):
        """Takes local vocabulary files, one id a line; they become assets of the SavedModel."""
        super().__init__()
        self._model = model
        self._num_items = items.size
        self._visitor_index = _index_table(visitors_file, visitors)
        self._item_index = _index_table(items_file, items)
        self._item_id = _id_table(items_file)

    @tf.function(input_signature=[_VISITOR_ID, _HISTORY, _K, _EXCLUDE_SEEN], autograph=False)
    def recommend(
        self, visitor_id: tf.Tensor, history: tf.Tensor, k: tf.Tensor, exclude_seen: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The K best items for each visitor, of the whole catalogue.

        Args:
          visitor_id: [B] string; '' or any unknown id: a visitor known by his history alone.
          history: [B, H] string, the items he has touched, oldest first; '' is padding. What is to be hidden must be
            given: the model keeps no timelines, not even those it was trained on. A model that looks at kinds and times
            of events takes all of them for views of this very moment; `recommend_events` is told them.
          k: from 1 to I.
          exclude_seen: hide the items of `history`.

        Returns:
          `item_id` [B, K] string, best first, and `score` [B, K] float32, comparable within a row. Where fewer than K
          items are left, the rest is '' with a score of -inf.
        """
        zeros = tf.zeros(tf.shape(history), tf.int64)
        return self._recommend(self._queries(visitor_id, history, zeros, zeros), k, exclude_seen)

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
        """The same for histories of which kinds and times are known, as the evaluator knows them.

        Args:
          history_event: [B, H] string: what was done with each item, one of EVENT_KINDS; anything beside ''.
          history_age_ms: [B, H] int64: milliseconds from then to now, at least 0; anything beside ''.
        """
        shapes = [_check_shape(history_event, history, "event"), _check_shape(history_age_ms, history, "age_ms")]
        with tf.control_dependencies(shapes):
            is_kind, is_padding = tf.equal(history_event[:, :, None], list(EVENT_KINDS)), history == ""
        checks = [
            tf.debugging.Assert(
                tf.reduce_all(tf.reduce_any(is_kind, axis=2) | is_padding),
                [f"history_event must be one of {', '.join(EVENT_KINDS)} for each item of history; got", history_event],
            ),
            tf.debugging.Assert(
                tf.reduce_all((history_age_ms >= 0) | is_padding),
                ["history_age_ms must be at least 0 for each item of history; got", history_age_ms],
            ),
        ]
        with tf.control_dependencies(checks):
            queries = self._queries(visitor_id, history, tf.argmax(is_kind, axis=2), history_age_ms)
        return self._recommend(queries, k, exclude_seen)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "visitor_id"), tf.TensorSpec([None], tf.string, "item_id")],
        autograph=False,
    )
    def score(self, visitor_id: tf.Tensor, item_id: tf.Tensor) -> dict[str, tf.Tensor]:
        """`score` [B] float32 of each pair of visitor_id [B] and item_id [B]."""
        visitor, item = self._visitor_index.lookup(visitor_id), self._item_index.lookup(item_id)
        return {"score": self._model.pair_scores(visitor, item)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "item_id"), tf.TensorSpec([], tf.int32, "k")], autograph=False
    )
    def similar_items(self, item_id: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        """The K items most like each of item_id [B], itself left out; `score` is the cosine of their vectors.

        An unknown item has the most popular items, with a score of 0. Otherwise as `recommend`.
        """
        item = self._item_index.lookup(item_id)
        is_known = item < self._num_items
        vectors = self._model.item_vectors()
        chosen = tf.gather(vectors, tf.where(is_known, item, 0))
        # lengths divide the products: [I, D] normalized vectors would be made anew for every request
        lengths = tf.norm(chosen, axis=1)[:, None] * tf.norm(vectors, axis=1)
        cosine = tf.math.divide_no_nan(tf.matmul(chosen, vectors, transpose_b=True), lengths)
        # equal scores come in the order of the vocabulary: most popular first
        scores = tf.where(is_known[:, None], cosine, 0.0)
        with tf.control_dependencies([self._check_k(k)]):
            return self._answer(top_k(hide(scores, item[:, None], tf.ones_like(item)), k))

    def _recommend(self, queries: Queries, k: tf.Tensor, exclude_seen: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([self._check_k(k)]):
            scores = visible_scores(self._model, queries, exclude_seen)
        return self._answer(top_k(scores, k))

    def _check_k(self, k: tf.Tensor) -> tf.Operation:
        message = f"k must be from 1 to {self._num_items}, the number of items in the catalogue; got"
        return tf.debugging.Assert((k >= 1) & (k <= self._num_items), [message, k])

    def _queries(self, visitor_id: tf.Tensor, history: tf.Tensor, event: tf.Tensor, age_ms: tf.Tensor) -> Queries:
        """For histories of ids, kinds of events and ages, all [B, H]; the moment is 0, and what was lies before it."""
        same_size = tf.debugging.assert_equal(
            tf.shape(visitor_id)[0],
            tf.shape(history)[0],
            message="history must have a row for each visitor_id; give '' where there is none",
        )
        is_padding = history == ""
        # clients that pad on the left, or leave out an item in the middle, mean the same
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

    def _answer(self, top: TopItems) -> dict[str, tf.Tensor]:
        is_shown = top.score > -float("inf")
        return {"item_id": tf.where(is_shown, self._item_id.lookup(top.item), ""), "score": top.score}


def _check_shape(column: tf.Tensor, history: tf.Tensor, name: str) -> tf.Operation:
    message = f"history_{name} must have an entry for each of history: the same shape"
    return tf.debugging.assert_equal(tf.shape(column), tf.shape(history), message=message)


def _index_table(path: str, vocabulary: VocabularyInfo) -> tf.lookup.StaticVocabularyTable:
    """Ids to the indices of the dataset contract; unknown ids to out-of-vocabulary buckets by their fingerprint."""
    places = tf.lookup.TextFileInitializer(
        path,
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        vocab_size=vocabulary.size,
    )
    return tf.lookup.StaticVocabularyTable(places, max(vocabulary.oov_buckets, 1))


def _id_table(path: str) -> tf.lookup.StaticHashTable:
    """Indices to ids; an index beyond the vocabulary to ''."""
    ids = tf.lookup.TextFileInitializer(
        path,
        key_dtype=tf.int64,
        key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        value_dtype=tf.string,
        value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    return tf.lookup.StaticHashTable(ids, default_value="")
