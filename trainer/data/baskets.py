"""The items of each training timeline, as a sparse matrix. A timeline is a visitor's events, in order of time.

Shapes: N timeline rows, T timelines, I items of the vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from contract.timelines import TimelineRows
from trainer.data.dataset import Dataset


def training_baskets(
    dataset: Dataset, event_weights: Sequence[float] | None = None, max_items: int | None = None
) -> sp.csr_matrix:
    """[T, I] float32: 1 for the latest `max_items` distinct items of each training timeline.

    Timelines are sorted by the time of their last event, descending. If `event_weights` (one per event kind) is given,
    events with the weight 0 and events of kinds with the weight 0 are skipped.

    Raises:
      ValueError: `event_weights` is given, and no event remains.
    """
    rows = TimelineRows.concatenate(list(dataset.training_events.read()))
    is_entry = rows.is_target == 1
    if event_weights is not None:
        is_entry &= np.array(event_weights, np.float32)[rows.event] * rows.weight > 0
    baskets = baskets_of(rows, dataset.num_items, is_entry=is_entry, max_items=max_items)
    if event_weights is not None and not baskets.nnz:
        raise ValueError(
            f"no training event of {dataset.root} has a weight above 0, because loss.event_weights is "
            f"{list(event_weights)} for {', '.join(dataset.manifest.event_kinds)}; raise loss.event_weights"
        )
    return baskets


def baskets_of(
    rows: TimelineRows, num_items: int, is_entry: np.ndarray | None = None, max_items: int | None = None
) -> sp.csr_matrix:
    """[T, I] float32: 1 for the latest `max_items` distinct items of each timeline; None: for all items.

    Timelines are sorted by the time of their last event, descending. `is_entry` [N] selects the rows; None: all rows.
    """
    timeline = np.cumsum(rows.position == 0) - 1
    last = np.flatnonzero(np.append(rows.position[1:] == 0, True))[: len(rows)]
    rank = np.empty(len(last), np.int64)
    rank[np.argsort(-rows.timestamp_ms[last], kind="stable")] = np.arange(len(last))
    kept = rows.item < num_items
    if is_entry is not None:
        kept &= is_entry
    timeline, item = _latest_distinct(timeline[kept], rows.item[kept], num_items, max_items)
    entries = np.ones(len(item), np.float32)
    baskets = sp.csr_matrix((entries, (rank[timeline], item)), (len(last), num_items))
    baskets.sort_indices()
    return baskets


def _latest_distinct(
    timeline: np.ndarray, item: np.ndarray, num_items: int, max_items: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the latest `max_items` distinct items of each timeline; None: all distinct items.

    Returns two 1-D arrays: the timeline and the item of each kept row, in the order of the rows.
    """
    _, from_end = np.unique((timeline * num_items + item)[::-1], return_index=True)
    latest = np.sort(len(timeline) - 1 - from_end)
    timeline, item = timeline[latest], item[latest]
    if max_items is None:
        return timeline, item
    num_later = np.searchsorted(timeline, timeline, side="right") - 1 - np.arange(len(timeline))
    return timeline[num_later < max_items], item[num_later < max_items]
