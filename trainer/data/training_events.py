"""The events that a model is trained on: those of the training split, or of all splits.

The shards of a split contain the split's rows as targets and, as context, the earlier rows of the same visitors. So a
visitor may have a timeline in each split, and the longest timeline has all of the visitor's events.

Shapes: N rows, V visitors of the vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from contract.shards import Shard, read_timelines
from contract.timelines import TimelineRows, timeline_starts


class TrainingEvents(NamedTuple):
    """Shards of timelines, and the rule that selects the rows to train on."""

    shards: Sequence[Shard]
    """The files, in order."""
    visitor_events: np.ndarray | None = None
    """[V] int64: number of events of each visitor over all splits. If it is given, all rows of a visitor's longest
    timeline are trained on, and the visitor's other timelines are skipped. Visitors outside the vocabulary share
    indices, so only their target rows are trained on. None: only target rows are trained on."""
    on_progress: Callable[[], None] = lambda: None
    """Called repeatedly while all events are read."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that `is_training_row` needs."""
        return ("is_target",) if self.visitor_events is None else ("is_target", "visitor", "position")

    def is_training_row(self, columns: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """[N] bool: whether models are trained on each row. `columns`: arrays [N] of whole timelines."""
        is_target = tf.equal(columns["is_target"], 1)
        if self.visitor_events is None:
            return is_target
        visitor = columns["visitor"]
        with tf.init_scope():  # captured by the input pipeline instead of copied into its graph
            visitor_events = tf.constant(self.visitor_events)
        num_events = tf.gather(visitor_events, tf.minimum(visitor, len(self.visitor_events) - 1))
        is_whole = tf.equal(timeline_lengths(columns["position"]), num_events)
        return tf.where(visitor < len(self.visitor_events), is_whole, is_target)

    def read(self) -> Iterator[TimelineRows]:
        """Yields each shard's timelines; `is_target` is 1 for rows to train on, 0 for rows that are only history."""
        for shard in self.shards:
            rows = read_timelines([shard])
            yield rows if self.visitor_events is None else self._select(rows, self.visitor_events)
            self.on_progress()

    def _select(self, rows: TimelineRows, visitor_events: np.ndarray) -> TimelineRows:
        starts = timeline_starts(rows.position)
        lengths = np.diff(np.append(starts, len(rows)))
        is_known = rows.visitor < len(visitor_events)
        num_events = visitor_events[np.minimum(rows.visitor, len(visitor_events) - 1)]
        is_partial = is_known & (np.repeat(lengths, lengths) != num_events)
        whole = replace(rows, is_target=np.where(is_known, 1, rows.is_target))
        return whole[~is_partial]


def timeline_lengths(position: tf.Tensor) -> tf.Tensor:
    """[N] int64: length of each row's timeline; `position` [N]: index of each row in its timeline."""
    timeline = tf.cumsum(tf.cast(tf.equal(position, 0), tf.int64)) - 1
    return tf.gather(tf.math.bincount(tf.cast(timeline, tf.int32), dtype=tf.int64), timeline)
