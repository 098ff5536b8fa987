"""Ranks items by the scores of many peers, for the same cases. The trainer's evaluator is compiled only once.

The cases of the tasks "new" and "repeats" have the same visitors and times. So a peer's scores are computed once for
both tasks and for all trends.

Shapes: B cases of a block, I items, M moments.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from benchmarks.peers.interface import Peer, Requests
from benchmarks.peers.trend import EventLog, TrendSettings, link_scores
from contract.schema import Split
from trainer.data.dataset import Dataset
from trainer.data.trend import DAY_MS
from trainer.evaluate import PROTOCOLS
from trainer.evaluation.cases import Cases, build_cases
from trainer.evaluation.evaluator import Evaluator
from trainer.models.interface import Queries
from trainer.ranking.lists import Lists

METRICS = ("ndcg@20", "recall@20", "mrr@20")
TASKS: Mapping[str, tuple[str, ...]] = {"returning_visitors": ("new", "repeats"), "next_item": ("next",)}
"""The tasks of each protocol.

"new": predict the items that a returning visitor chose for the first time; seen items are hidden. "repeats": predict
the items of the history that the visitor chose again; seen items are shown. "next": predict the item of each row; seen
items are shown.
"""
_STORED_SCORES = 100_000_000  # of a block of cases: 400 MB
_CHUNK_SCORES = 4_000_000  # scores per call of a peer: few enough for the allocator to reuse the memory
_SEED = 0


def task_cases(dataset: Dataset, split: Split, protocol: str, *, max_cases: int, max_scores: int) -> dict[str, Cases]:
    """Returns the cases of each task of an evaluation protocol; skips tasks without cases.

    If a task has too many cases, a random sample of them is drawn.

    Args:
      dataset: the dataset.
      split: validation or test.
      protocol: a key of `TASKS`.
      max_cases: maximum number of cases of a task.
      max_scores: maximum number of scores of a task: cases × items.
    """
    cases = build_cases(dataset, split, PROTOCOLS[protocol])
    cases = cases.sample_cases(min(max_cases, max(max_scores // dataset.num_items, 1)), seed=_SEED)
    found = {"new": cases, "repeats": repeat_cases(cases)} if cases.hides_seen else {"next": cases}
    return {task: cases for task, cases in found.items() if len(cases)}


def repeat_cases(cases: Cases) -> Cases:
    """Restricts cases to repeats: only items of the history are relevant, and no item is hidden."""
    owner, item = cases.secondary_relevant.owner, cases.secondary_relevant.values
    is_repeat = np.zeros(len(item), bool)
    for case, (begin, end) in enumerate(zip(cases.history.begins, cases.history.ends, strict=True)):
        pairs = slice(*cases.secondary_relevant.starts[case : case + 2])
        is_repeat[pairs] = np.isin(item[pairs], cases.history.item[begin:end])
    kept = np.unique(owner[is_repeat])
    relevant = Lists.from_pairs(owner[is_repeat], item[is_repeat], len(cases)).take(kept)
    return replace(
        cases.take(kept),
        relevant=relevant,
        secondary_relevant=relevant,
        is_kind=np.ones((len(relevant.values), len(cases.kinds)), bool),  # only groups of reports use it
        is_new=np.zeros(len(kept), bool),
        hides_seen=False,
    )


class _StoredScorer:
    """Adds a trend to stored scores. The stored scores of a query are row `queries.visitor` of `scores` [B, I]."""

    def __init__(self, num_items: int) -> None:
        self._num_items = num_items
        self.scores = np.zeros((0, num_items), np.float32)
        self.moment = np.zeros(0, np.int64)  # [B] rows of `trends`
        self.trends = np.zeros((0, num_items), np.float32)  # [M, I]

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        def look_up(row: np.ndarray) -> np.ndarray:
            return self.scores[row] + self.trends[self.moment[row]]

        scores = tf.numpy_function(look_up, [queries.visitor], tf.float32, stateful=True)
        return tf.ensure_shape(scores, [None, self._num_items])


class RankedBlock:
    """Some cases of an evaluation protocol. `load` computes a peer's scores, and `rank` computes their metrics."""

    def __init__(self, tasks: Mapping[str, Cases], moment_ms: np.ndarray, events: EventLog) -> None:
        """Prepares an evaluator for each task. The first task must include all visitors of the other tasks.

        `moment_ms` [B] has, for each case of the first task, the time at which the trend is computed.
        """
        self._cases, self._events = next(iter(tasks.values())), events
        self._moment_ms = moment_ms
        self._moments, moment = np.unique(moment_ms, return_inverse=True)
        self._stored = _StoredScorer(self._cases.num_items)
        self._stored.moment = moment
        self._scores: np.ndarray | None = None
        self._linked: dict[str, np.ndarray] = {}
        self._evaluators = {}
        for name, cases in tasks.items():
            is_first = cases is self._cases
            row = np.arange(len(cases)) if is_first else np.searchsorted(self._cases.timeline, cases.timeline)
            self._evaluators[name] = Evaluator(self._stored, replace(cases, visitor=row), (20,))

    @property
    def tasks(self) -> Sequence[str]:
        """Names of the tasks in this block, such as `repeats`."""
        return list(self._evaluators)

    def load(self, peer: Peer) -> None:
        """Computes the scores of a peer for all cases of the block, and keeps them for `rank`."""
        self._linked = {}
        if self._scores is None:  # otherwise, the memory is reused
            self._scores = np.zeros((len(self._cases), self._cases.num_items), np.float32)
        for rows, requests in self._requests():
            self._scores[rows] = peer.scores(requests)

    def unload(self) -> None:
        self._scores, self._linked = None, {}
        self._stored.scores = np.zeros((0, self._cases.num_items), np.float32)

    def rank(self, task: str, trend: TrendSettings | None = None) -> dict[str, np.ndarray]:
        """Ranks the items by the loaded scores plus the trend; returns the values of each metric by case.

        Raises:
          ValueError: no scores are loaded.
        """
        if self._scores is None:
            raise ValueError("no scores to rank; call `load` first")
        if trend is None:
            self._stored.scores = self._scores
            self._stored.trends = np.zeros((len(self._moments), self._cases.num_items), np.float32)
        else:
            if trend.link not in self._linked:
                self._linked[trend.link] = link_scores(self._scores, trend.link)
            self._stored.scores = self._linked[trend.link]
            self._stored.trends = np.float32(trend.beta) * self._events.trends(trend.half_life_days, self._moments)
        by_case = self._evaluators[task].measure().by_case
        return {metric: by_case[metric] for metric in METRICS}

    def _requests(self) -> Iterator[tuple[slice, Requests]]:
        cases, size = self._cases, max(_CHUNK_SCORES // self._cases.num_items, 1)
        for begin in range(0, len(cases), size):
            end = min(begin + size, len(cases))
            history, _, _ = cases.history.padded(begin, end)
            moment_ms = self._moment_ms[begin:end]
            yield (
                slice(begin, end),
                Requests(cases.visitor[begin:end], history, cases.history.lengths[begin:end], moment_ms),
            )


def ranked_blocks(tasks: Mapping[str, Cases], events: EventLog) -> list[RankedBlock]:
    """Splits the cases, in order, into blocks whose scores fit into memory. All cases of a day use the same trend."""
    cases = next(iter(tasks.values()))
    start = cases.timestamp_ms.min()
    moment_ms = start + (cases.timestamp_ms - start) // DAY_MS * DAY_MS
    size = max(_STORED_SCORES // cases.num_items, 1)
    blocks = []
    for begin, end in itertools.pairwise([*range(0, len(cases), size), len(cases)]):
        of_first = cases.take(np.arange(begin, end))
        others = {
            name: other.take(np.flatnonzero(np.isin(other.timeline, of_first.timeline)))
            for name, other in tasks.items()
            if other is not cases
        }
        some = {name: other for name, other in others.items() if len(other)}
        blocks.append(RankedBlock({next(iter(tasks)): of_first} | some, moment_ms[begin:end], events))
    return blocks
