"""The latest entries of histories, with weights by age.

Shapes: B queries, H history, L latest entries of a history, E entries of all queries.
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
    """Returns the latest entries of each query's history, newest first; skips entries of unknown items.

    The weight of an entry is (1 + age) ** -recency_power. The age of an entry is the number of later entries in the
    history, including entries of unknown items.

    Args:
      queries: B queries with histories.
      max_entries: maximum number of entries of a history, including those of unknown items; older ones are ignored.
      num_items: an item is unknown if its index is `num_items` or higher.
      recency_power: scalar float32; a higher power reduces the weights of older entries more.
    """
    age = tf.range(tf.minimum(tf.shape(queries.history)[1], max_entries), dtype=tf.int64)
    position = queries.history_length[:, None] - 1 - age  # [B, L]
    item = tf.gather(queries.history, tf.maximum(position, 0), batch_dims=1)
    entry = tf.where((position >= 0) & (item >= 0) & (item < num_items))  # [E, 2]
    weight = tf.pow(1.0 + tf.cast(age, tf.float32), -recency_power)
    return Entries(entry[:, 0], tf.gather_nd(item, entry), tf.gather(weight, entry[:, 1]))
