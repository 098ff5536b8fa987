"""Finds the candidate items of evaluation cases and their features; `blend_search` fits the weights of a blend to them.

If cases × items is at most `MAX_CELLS`, all items are candidates. Otherwise, `candidate_search` lists them.

Shapes: V cases, W cases that have a relevant candidate, C candidates, I items, F features. The features are the scores
of the blended models, the popularity, a trend per half-life, and the return features.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from trainer.data.trend import ItemEvents
from trainer.distributed.precision import full_float32
from trainer.distributed.replicas import Replicas
from trainer.evaluation.candidate_search import NUM_COMMON_FEATURES, TOP, CandidateSearch, ItemLists
from trainer.evaluation.cases import Cases
from trainer.models.blend import Part, log_popularity
from trainer.models.interface import Queries
from trainer.ranking.topk import chunk_size, query_chunks, query_signature, translate_divergence_errors

LIST_LENGTH = 20
MAX_CELLS = 720_000
"""Maximum number of cases × items for which all items are candidates; 2,000 cases have about as many candidates."""
_THREADS = 2  # chunks that are ranked at once: some steps use one core only, and the other chunk uses the rest
_DISCOUNT = np.append(1 / np.log2(np.arange(LIST_LENGTH) + 2.0), 0.0)
"""The gain of a relevant item in the DCG, by its rank; the last value is for all ranks after the list."""


@dataclass(frozen=True)
class Candidates:
    """The candidate items of evaluation cases, and the items' features. Blend weights are chosen on this data."""

    feature: np.ndarray
    """[V, C, F] float32: features of the candidates."""
    is_relevant: np.ndarray
    """[V, C] bool: whether the candidate is relevant."""
    is_candidate: np.ndarray
    """[V, C] bool: False for padding."""
    num_relevant: np.ndarray
    """[V] int64: relevant items of each case, including those that are not candidates."""

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """[V]: NDCG@20 of each case for `scores` [V, C]; among equal scores, relevant candidates rank last."""
        return self.ndcg_of_hits(np.where(self.is_candidate, scores, -np.inf)[self.hits])

    def ndcg_of_hits(self, scores: np.ndarray) -> np.ndarray:
        """[V]: NDCG@20 of each case; 0 for cases that have no relevant candidate.

        `scores`: [W, C] in the order of `hits`; -inf for padding.
        """
        gain = np.zeros(len(scores))
        # counting better candidates takes a third of the time of a partial sort, which ranks all others as well
        for position in self._relevant_columns:
            rows = scores[: len(position)]
            own = np.take_along_axis(rows, position[:, None], 1)
            rank = np.count_nonzero(rows >= own, axis=1) - 1
            gain[: len(position)] += _DISCOUNT[np.minimum(rank, LIST_LENGTH)]
        values = np.zeros(len(self.num_relevant))
        values[self.hits] = gain / np.cumsum(_DISCOUNT)[np.minimum(self.num_relevant[self.hits], LIST_LENGTH) - 1]
        return values

    @cached_property
    def hits(self) -> np.ndarray:
        """[W] indices of the cases that have relevant candidates; those with the most of them come first."""
        count = self.is_relevant.sum(axis=1)
        return np.argsort(-count, kind="stable")[: np.count_nonzero(count)]

    @cached_property
    def columns(self) -> np.ndarray:
        """[F, W, C] float32: features of the candidates of the cases `hits`."""
        return np.ascontiguousarray(np.moveaxis(self.feature[self.hits], 2, 0))

    @cached_property
    def spreads(self) -> list[float]:
        """For each blended model: the standard deviation of its `TOP` highest scores per case, averaged over cases."""
        num_parts = self.feature.shape[2] - NUM_COMMON_FEATURES
        return [_typical_spread(self.feature[:, :, part], self.is_candidate) for part in range(num_parts)]

    @cached_property
    def _relevant_columns(self) -> list[np.ndarray]:
        """For k = 0, 1, …: the columns of the k-th relevant candidates, an array over the cases that have one.

        These are the first cases of `hits`.
        """
        is_relevant = self.is_relevant[self.hits]
        count = is_relevant.sum(axis=1)
        position = np.argsort(~is_relevant, axis=1, kind="stable")
        return [position[: (count > number).sum(), number] for number in range(count.max(initial=0))]


class CandidateFinder:
    """Finds the candidates of cases, and computes their features; compiles only once for all cases."""

    def __init__(
        self,
        parts: Sequence[Part],
        events: ItemEvents,
        item_counts: np.ndarray,
        replicas: Replicas | None = None,
        *,
        hides_seen: bool,
        has_all_items: bool = False,
    ) -> None:
        """Compiles the search.

        Args:
          parts: the models.
          events: events of all splits; the trends for a case use only events before the case.
          item_counts: [I] training events of each item.
          replicas: all replicas; each worker handles a part of the cases. None: this process handles all cases.
          hides_seen: whether to exclude the items of a case's history.
          has_all_items: whether all items are candidates, see `MAX_CELLS`.
        """
        self._events, self._replicas, self._hides_seen = events, replicas, hides_seen
        self._search = CandidateSearch(
            parts, log_popularity(item_counts), hides_seen=hides_seen, has_all_items=has_all_items
        )
        # the features of all items take as much memory as the scores of as many more queries
        columns = self._search.num_features if has_all_items else 1
        self._chunk_size = max(chunk_size(events.num_items) // (_THREADS * columns), 1)
        # traced before the first call; otherwise TensorFlow mistakes the calls of several blends for retracing, and
        # warns
        self._find = tf.function(
            self._search.find,
            input_signature=[query_signature(self._chunk_size), ItemLists.signature()],
            autograph=False,
        ).get_concrete_function()

    def find(
        self,
        cases: Cases,
        on_chunk: Callable[[], None] = lambda: None,
        *,
        deadline: float | None = None,
        least_cases: int = 0,
    ) -> Candidates:
        """Finds the candidates of each case.

        Args:
          cases: cases of the dataset that the events are from.
          on_chunk: called before each chunk of cases.
          deadline: time on the clock `time.monotonic` at which to stop; later cases are missing in the result. None: no
            limit. Must be None if there are several workers.
          least_cases: minimum number of cases, even after the deadline; all cases if there are fewer.
        """
        lists = self._search.list_items(cases, self._events)
        item = np.zeros((len(cases), self._search.num_candidates), np.int64)
        is_candidate = np.zeros_like(item)
        feature = np.zeros((*item.shape, self._search.num_features), np.float32)

        def rank(chunk: slice, queries: Queries) -> None:
            with full_float32(), translate_divergence_errors():
                found = self._find(queries, lists)
            count = chunk.stop - chunk.start
            item[chunk], is_candidate[chunk], feature[chunk] = (column[:count].numpy() for column in found)

        num_ranked = self._rank_chunks(rank, cases, on_chunk, deadline, least_cases)
        if self._replicas is not None:
            item, is_candidate, feature = (
                self._replicas.sum_over_workers(column) for column in (item, is_candidate, feature)
            )
        if deadline is not None:
            cases = cases.take(np.arange(num_ranked))
        return _make_candidates(
            cases, item[: len(cases)], is_candidate[: len(cases)], feature[: len(cases)], hides_seen=self._hides_seen
        )

    def _rank_chunks(
        self,
        rank: Callable[[slice, Queries], None],
        cases: Cases,
        on_chunk: Callable[[], None],
        deadline: float | None,
        least_cases: int,
    ) -> int:
        """Calls `rank` for this worker's chunks until the deadline; returns the end of the last chunk."""
        with ThreadPoolExecutor(_THREADS) as pool:
            ranked, num_ranked = deque[Future[None]](), 0
            for chunk, queries in query_chunks(
                cases.visitor, cases.history, cases.timestamp_ms, self._chunk_size, self._replicas
            ):
                on_chunk()
                if deadline is not None and num_ranked >= least_cases and time.monotonic() > deadline:
                    break
                if len(ranked) == _THREADS:
                    ranked.popleft().result()
                ranked.append(pool.submit(rank, chunk, queries))
                num_ranked = chunk.stop
            for each in ranked:
                each.result()
        return num_ranked


def _make_candidates(
    cases: Cases, item: np.ndarray, is_candidate: np.ndarray, feature: np.ndarray, *, hides_seen: bool
) -> Candidates:
    """Moves the padding behind the candidates, and finds the relevant ones; shapes: see `CandidateSearch.find`."""
    is_known = is_candidate.astype(bool)
    # candidates first, so that the padding after the longest row can be dropped
    order = np.argsort(~is_known, axis=1, kind="stable")[
        :, : max(int(is_known.sum(axis=1).max(initial=0)), LIST_LENGTH)
    ]
    item, is_known = (np.take_along_axis(column, order, axis=1) for column in (item, is_known))
    relevant = cases.relevant if hides_seen == cases.hides_seen else cases.secondary_relevant
    pairs = relevant.owner * cases.num_items + relevant.values
    is_relevant = is_known & np.isin(np.arange(len(cases))[:, None] * cases.num_items + item, pairs)
    feature = np.take_along_axis(feature, order[:, :, None], axis=1)
    return Candidates(feature, is_relevant, is_known, relevant.lengths)


def join_candidates(found: Iterable[Candidates]) -> Candidates:
    """Joins the candidates of several samples of cases; pads all cases to the same number of candidates."""
    samples = list(found)
    width = max(sample.is_candidate.shape[1] for sample in samples)

    def join(columns: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [np.pad(each, [(0, 0), (0, width - each.shape[1])] + [(0, 0)] * (each.ndim - 2)) for each in columns]
        )

    return Candidates(
        join(sample.feature for sample in samples),
        join(sample.is_relevant for sample in samples),
        join(sample.is_candidate for sample in samples),
        np.concatenate([sample.num_relevant for sample in samples]),
    )


def _typical_spread(scores: np.ndarray, is_candidate: np.ndarray) -> float:
    count = min(TOP, scores.shape[1])
    best = -np.partition(np.where(is_candidate, -scores, np.inf), count - 1, axis=1)[:, :count]
    return max(float(np.std(np.where(np.isfinite(best), best, best.max(axis=1, keepdims=True)), axis=1).mean()), 1e-6)
