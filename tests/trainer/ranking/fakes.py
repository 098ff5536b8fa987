"""Scorers and queries with known numbers."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from contract.schema import DEFAULT_KINDS
from trainer.evaluation.cases import Cases
from trainer.models.interface import Queries
from trainer.models.similarity import cosines
from trainer.ranking.histories import Histories
from trainer.ranking.lists import Lists


class TableScorer:
    """Looks up the scores of visitor v in row v of a table [V, I]."""

    def __init__(self, scores: np.ndarray):
        self.scores = tf.Variable(scores, dtype=tf.float32)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return tf.gather(self.scores, queries.visitor)


def lists_of(rows: Sequence[Sequence[int]]) -> Lists:
    starts = np.cumsum([0, *(len(row) for row in rows)])
    return Lists(np.array([entry for row in rows for entry in row], np.int64), starts)


def histories_of(rows: Sequence[Sequence[int]]) -> Histories:
    """Builds histories of views of these items; the n-th view is at n ms."""
    lists = lists_of(rows)
    begins, ends = lists.starts[:-1], lists.starts[1:]
    event = np.zeros_like(lists.values)
    moment = np.arange(len(lists.values)) - np.repeat(begins, lists.lengths)
    return Histories(item=lists.values, event=event, timestamp_ms=moment, begins=begins, ends=ends)


def cases_of(history: Sequence[Sequence[int]], relevant: Sequence[Sequence[int]], num_items: int) -> Cases:
    """Builds cases: case v is of visitor v, all events are views, and seen items are hidden."""
    relevant_lists = lists_of(relevant)
    return Cases(
        visitor=np.arange(len(history)),
        timeline=np.arange(len(history)),
        history=histories_of(history),
        timestamp_ms=np.full(len(history), 1000),
        relevant=relevant_lists,
        secondary_relevant=relevant_lists,
        kinds=DEFAULT_KINDS,
        is_kind=np.tile([True, False, False], (len(relevant_lists.values), 1)),
        is_new=np.array([not set(new) & set(seen) for seen, new in zip(history, relevant, strict=True)], bool),
        hides_seen=True,
        num_items=num_items,
        num_without_history=0,
        num_without_relevant=0,
        unknown_item_share=0.0,
    )


def queries_of(visitor: Sequence[int], history: Sequence[Sequence[int]] = ()) -> Queries:
    lists = lists_of(history or [[]] * len(visitor))
    items, lengths = tf.constant(lists.padded(0, len(lists))), tf.constant(lists.lengths)
    return Queries.of_items(tf.constant(visitor, tf.int64), items, lengths)


class DotModel(tf.Module):
    """A trained model with known numbers: dot products plus item biases; unknown visitors have the biases only."""

    def __init__(self, visitor_vectors: np.ndarray, item_vectors: np.ndarray, item_bias: np.ndarray):
        super().__init__()
        self._num_visitors, self._num_items = len(visitor_vectors), len(item_vectors)
        self.visitor_vectors = tf.Variable(visitor_vectors, dtype=tf.float32, name="visitor_vectors")
        self.vectors = tf.Variable(item_vectors, dtype=tf.float32, name="item_vectors")
        self.bias = tf.Variable(item_bias, dtype=tf.float32, name="item_bias")

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return tf.matmul(self._visitor(queries.visitor), self.vectors, transpose_b=True) + self.bias

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        is_known = item < self._num_items
        index = tf.where(is_known, item, 0)
        dot = tf.reduce_sum(self._visitor(visitor) * tf.gather(self.vectors, index), axis=1)
        return tf.where(is_known, dot + tf.gather(self.bias, index), 0.0)

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        return cosines(self.vectors, item)

    def _visitor(self, visitor: tf.Tensor) -> tf.Tensor:
        is_known = visitor < self._num_visitors
        return tf.where(is_known[:, None], tf.gather(self.visitor_vectors, tf.where(is_known, visitor, 0)), 0.0)
