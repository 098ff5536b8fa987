"""Builds requests and training data for peers from lists of items."""

import numpy as np
import scipy.sparse as sp

from benchmarks.peers.interface import PeerData, Requests, timelines_of
from benchmarks.peers.trend import EventLog
from contract.timelines import TimelineRows
from tests.trainer.ranking.fakes import lists_of

START_MS = 1_000_000_000


def requests_of(histories, visitors=None, timestamp_ms=0):
    lists = lists_of(histories)
    visitor = np.arange(len(histories)) if visitors is None else np.array(visitors)
    moment = np.full(len(histories), timestamp_ms)
    return Requests(visitor, lists.padded(0, len(lists)), lists.lengths, moment)


def data_of(timelines, num_items, ends_ms=None):
    """Returns training data: visitor v has timeline v, with all rows at START_MS or, if given, at `ends_ms[v]`."""
    rows = [
        (visitor, position, item, 0, START_MS if ends_ms is None else ends_ms[visitor], 1)
        for visitor, items in enumerate(timelines)
        for position, item in enumerate(items)
    ]
    columns = TimelineRows(*np.array(rows, np.int64).T)
    data = PeerData(None)
    # cached properties, so that no dataset is read
    data.__dict__["timelines"] = timelines_of(columns, num_items)
    data.__dict__["counts"] = np.bincount(columns.item, minlength=num_items)
    entry = (columns.visitor, columns.item)
    data.__dict__["interactions"] = sp.csr_matrix(
        (np.ones(len(columns), np.float32), entry), (len(timelines), num_items)
    )
    data.__dict__["events"] = EventLog(columns.timestamp_ms, columns.item, num_items)
    return data
