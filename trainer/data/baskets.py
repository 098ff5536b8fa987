"""The items of each training timeline, as a sparse matrix.

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
    """[T, I] float32: 1 if the timeline has a training event of the item. Timelines that end later come first.

    Args:
      dataset: the dataset.
      event_weights: a factor for each event kind. An event is skipped if the factor of its kind is 0, or if its own
        weight is 0. None: no event is skipped.
      max_items: see `baskets_of`.

    Raises:
      ValueError: `event_weights` is given, and all training events are skipped.
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
    """[T, I] float32: 1 if the timeline contains the item. Timelines that end later come first.

    Args:
      rows: whole timelines, one after the other; the rows of a timeline are in order of time.
      num_items: the number of items, I; rows with an item index of I or higher are skipped.
      is_entry: [N] bool, whether a row is used; None: all rows are used.
      max_items: maximum number of distinct items per timeline; the items with the latest events are kept. None: all.
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
    """Selects the latest distinct items of each timeline.

    If a timeline has several rows with the same item, only the last of them is selected. If more than `max_items` rows
    of the timeline remain, only the last `max_items` of them are selected.

    Args:
      timeline: [N] index of each row's timeline; the rows of a timeline are in order of time.
      item: [N] item of each row.
      num_items: the number of items, I.
      max_items: maximum number of rows per timeline; None: no maximum.

    Returns:
      The timeline and the item of each selected row, both 1-D, in the order of the rows.
    """
    _, from_end = np.unique((timeline * num_items + item)[::-1], return_index=True)
    latest = np.sort(len(timeline) - 1 - from_end)
    timeline, item = timeline[latest], item[latest]
    if max_items is None:
        return timeline, item
    num_later = np.searchsorted(timeline, timeline, side="right") - 1 - np.arange(len(timeline))
    return timeline[num_later < max_items], item[num_later < max_items]
