"""Ids and whole timelines of all visitors of a dataset, including those outside the vocabulary."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from common.errors import ContractError
from contract.schema import Split, Vocabulary
from contract.shards import Shard, read_identified_timelines
from contract.timelines import TimelineRows, timeline_starts
from trainer.data.dataset import Dataset


class VisitorTimelines(NamedTuple):
    """The timelines of V visitors over all splits."""

    ids: list[str]
    """[V] ids: first those of the vocabulary, in its order, then those of other visitors with events, such as visitors
    without training events."""
    rows: TimelineRows
    """Rows of all timelines, sorted by visitor, then by time; the column `visitor` contains indices into `ids`."""


def read_visitor_timelines(dataset: Dataset) -> VisitorTimelines:
    """Reads the timelines of all visitors; events with equal timestamps keep their order in the dataset."""
    known = dataset.vocabulary(Vocabulary.VISITORS)
    others: dict[str, int] = {}
    shards = [shard for split in Split if split in dataset.manifest.splits for shard in dataset.shards(split)]
    rows = TimelineRows.concatenate([_read_targets(shard, len(known), others) for shard in shards])
    return VisitorTimelines([*known, *others], rows[np.lexsort([rows.timestamp_ms, rows.visitor])])


def _read_targets(shard: Shard, num_known: int, others: dict[str, int]) -> TimelineRows:
    """Reads the target rows of a shard.

    A visitor outside the vocabulary gets the index `num_known` + `others[id]`. An id that is not yet in `others` is
    added with the next number.

    Raises:
      ContractError: the shard lacks the ids of visitors outside the vocabulary.
    """
    rows, unknown_ids = read_identified_timelines(shard)
    starts = timeline_starts(rows.position)
    visitor = rows.visitor[starts]
    is_unknown = visitor >= num_known
    if is_unknown.sum() != len(unknown_ids):
        raise ContractError(f"{shard.path} lacks the ids of visitors outside the vocabulary; prepare the dataset again")
    visitor[is_unknown] = [num_known + others.setdefault(visitor_id, len(others)) for visitor_id in unknown_ids]
    rows = replace(rows, visitor=np.repeat(visitor, np.diff(np.append(starts, len(rows)))))
    return rows[rows.is_target == 1]
