"""The latest entries of histories, with weights by age.

Shapes: B queries, H entries of a history, L latest entries of a history, E entries of all queries.
"""

from typing import NamedTuple

import tensorflow as tf

from trainer.models.interface import Queries


class Entries(NamedTuple):
    """The entries of the histories of all queries, in the order of the queries."""

    query: tf.Tensor
    """[E] int64 index of the query, ascending."""
    item: tf.Tensor
    """[E] int64 index of a known item."""
    weight: tf.Tensor
    """[E] float32, above 0."""


def latest_entries(queries: Queries, max_entries: int, num_items: int, recency_power: tf.Tensor) -> Entries:
    """Returns the latest entries of each query's history, newest first, without unknown items.

    The weight of an entry is (1 + age) ** -recency_power. The age is the number of later entries, known or unknown.

    Args:
      max_entries: maximum number of latest entries. Unknown items count towards it, but are not returned.
      num_items: items from this index on are unknown.
      recency_power: scalar float32.
    """
    age = tf.range(tf.minimum(tf.shape(queries.history)[1], max_entries), dtype=tf.int64)
    position = queries.history_length[:, None] - 1 - age  # [B, L]
    item = tf.gather(queries.history, tf.maximum(position, 0), batch_dims=1)
    entry = tf.where((position >= 0) & (item >= 0) & (item < num_items))  # [E, 2]
    weight = tf.pow(1.0 + tf.cast(age, tf.float32), -recency_power)
    return Entries(entry[:, 0], tf.gather_nd(item, entry), tf.gather(weight, entry[:, 1]))
