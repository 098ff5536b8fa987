"""The evaluator: ranks the whole catalogue for every case and measures where the right items stand.

Ties count against the system: an irrelevant item of the same score stands before a relevant one, so that a scorer that
cannot tell items apart earns nothing from the order of the catalogue.

Shapes: B cases of a chunk, V cases, P (case, relevant item) pairs, I items, K the longest list looked at.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases
from trainer.evaluation.metrics import RelevantRanks, metric_values
from trainer.models.interface import Queries, Scorer
from trainer.ranking.lists import Lists
from trainer.ranking.topk import (
    chunk_size,
    hide,
    query_chunks,
    query_signature,
    refusing_diverged,
    top_k,
    visible_scores,
)

LIST_LENGTHS = (1, 5, 10, 20, 100)
"""The K of every metric in a report."""


@dataclass(frozen=True)
class Measurement:
    """What one system reached.

    ks                the list lengths
    ranks             of the relevant items as the protocol ranks
    ranks_otherwise   of what is relevant then, with the items of the history shown where the protocol hides them, and
                      hidden where it shows them: what is hidden then ranks last; None: not asked for
    shown             how often each item is in a list of k as the protocol ranks, [I] int64, by k
    """

    ks: tuple[int, ...]
    ranks: RelevantRanks
    ranks_otherwise: RelevantRanks | None
    shown: dict[int, np.ndarray]

    @cached_property
    def by_case(self) -> dict[str, np.ndarray]:
        """A metric's name, `ndcg@10`, to its values [V]."""
        return metric_values(self.ranks, self.ks)

    def mean(self, name: str) -> float:
        """A metric's mean over the cases."""
        return float(self.by_case[name].mean())


class SeenPolicy(NamedTuple):
    """How seen items are treated, and what is to be found then."""

    hides_seen: bool
    relevant: Lists


class _ChunkRanking(NamedTuple):
    """One chunk, ranked.

    top_item         [B, K] int64
    top_score        [B, K] float32, descending; -inf: hidden
    num_reaching     [B] int32: items whose score is at least the K-th
    relevant_score   [B, R] float32, R the most relevant items of a case in the chunk; filled up with any score
    """

    top_item: tf.Tensor
    top_score: tf.Tensor
    num_reaching: tf.Tensor
    relevant_score: tf.Tensor


class Evaluator:
    """Measures a scorer on cases; made once, it measures again and again as the scorer's weights change."""

    def __init__(
        self,
        scorer: Scorer,
        cases: Cases,
        ks: Sequence[int] = LIST_LENGTHS,
        scores_bytes: int | None = None,
        replicas: Replicas | None = None,
        is_both_ways: bool = False,
    ):
        """Prepares a compiled ranking.

        Args:
          scorer: a trained model or a baseline.
          cases: whom to rank for and what is right.
          ks: the list lengths; those beyond the catalogue count as the whole catalogue.
          scores_bytes: memory for the scores of a chunk; by default what suits the device.
          replicas: whose workers rank together, each some of the chunks; all get the same measurement.
          is_both_ways: rank once more with seen items treated the other way.

        Raises:
          ValueError: there are no cases, or a list length is below 1.
        """
        if not len(cases):
            raise ValueError(
                "there is nothing to rank: nobody with a history turns to an item that he may be shown and that "
                "training knows; prepare the dataset with a longer window"
            )
        if min(ks) < 1:
            raise ValueError(f"list lengths must be at least 1, got {list(ks)}")
        self._scorer, self._cases, self._ks, self._replicas = scorer, cases, tuple(sorted(set(ks))), replicas
        ways = [
            SeenPolicy(cases.hides_seen, cases.relevant),
            SeenPolicy(not cases.hides_seen, cases.relevant_otherwise),
        ]
        self._ways = ways if is_both_ways else ways[:1]
        self._longest = min(max(ks), cases.num_items)
        self._chunk_size = chunk_size(cases.num_items, scores_bytes)
        relevant = [tf.TensorSpec([self._chunk_size, None], tf.int64)] * len(self._ways)
        signature = [query_signature(self._chunk_size), relevant]
        self._rank = tf.function(self._rank_chunk, input_signature=signature, autograph=False)

    def measure(
        self, look: Callable[[], None] = lambda: None, tell: Callable[[int], object] = lambda _: None
    ) -> Measurement:
        """Ranks the catalogue for every case with the scorer's present weights.

        Args:
          look: called before each chunk; what it raises ends the measurement.
          tell: called with the cases that each chunk brought nearer to the end, those of other workers included.

        Raises:
          ValueError: a score is NaN or infinite.
        """
        cases = self._cases
        ranks = [np.zeros(len(way.relevant.values), np.int64) for way in self._ways]
        added = np.zeros((len(self._ks), cases.num_items), np.int64)  # shown at places from the next lower k on
        told = 0
        for chunk, queries in query_chunks(
            cases.visitor, cases.history, cases.timestamp_ms, self._chunk_size, self._replicas
        ):
            look()
            padded = [way.relevant.padded(chunk.start, chunk.stop) for way in self._ways]
            filled = [np.pad(rows, ((0, self._chunk_size - len(rows)), (0, 0))) for rows in padded]
            with refusing_diverged():
                rankings = self._rank(queries, [tf.constant(rows) for rows in filled])
            for row, way, ranking in zip(ranks, self._ways, rankings, strict=True):
                pairs = slice(*way.relevant.starts[[chunk.start, chunk.stop]])
                numbers = _ChunkRanking(*(part.numpy() for part in ranking))
                row[pairs] = _pessimistic_ranks(numbers, way.relevant.lengths[chunk])
            self._count_shown(added, rankings[0], chunk.stop - chunk.start)
            tell(chunk.stop - told)
            told = chunk.stop
        tell(len(cases) - told)
        if self._replicas is not None:  # each pair was ranked by one worker, and is 0 with the others
            ranks = [self._replicas.sum_over_workers(row) for row in ranks]
            added = self._replicas.sum_over_workers(added)
        found = [
            RelevantRanks(row, way.relevant.owner, way.relevant.lengths)
            for row, way in zip(ranks, self._ways, strict=True)
        ]
        shown = dict(zip(self._ks, added.cumsum(axis=0), strict=True))
        return Measurement(self._ks, found[0], found[1] if len(found) > 1 else None, shown)

    def _count_shown(self, added: np.ndarray, ranking: _ChunkRanking, count: int) -> None:
        """Adds the lists of the first `count` cases of a chunk to `added` [len(ks), I]."""
        items, is_shown = ranking.top_item.numpy()[:count], ranking.top_score.numpy()[:count] > -np.inf
        for place, (begin, end) in enumerate(itertools.pairwise([0, *self._ks])):
            np.add.at(added[place], items[:, begin:end][is_shown[:, begin:end]], 1)

    def _rank_chunk(self, queries: Queries, relevant: list[tf.Tensor]) -> list[_ChunkRanking]:
        """The ranking as the protocol has it and, where that is asked for, with seen items treated the other way."""
        scores = visible_scores(self._scorer, queries, is_seen_hidden=False)
        rankings = []
        for way, items in zip(self._ways, relevant, strict=True):
            visible = hide(scores, queries.history, queries.history_length) if way.hides_seen else scores
            rankings.append(self._rank_scores(visible, items))
        return rankings

    def _rank_scores(self, scores: tf.Tensor, relevant: tf.Tensor) -> _ChunkRanking:
        k = self._longest
        top = top_k(scores, min(k + 1, self._cases.num_items))
        last = top.score[:, k - 1 : k]
        # the K best hold all that reach the K-th score, unless the next one reaches it too: then, and rarely, count
        num_reaching = tf.cond(
            tf.reduce_any(top.score[:, k:] == last),
            lambda: tf.reduce_sum(tf.cast(scores >= last, tf.int32), axis=1),
            lambda: tf.fill([self._chunk_size], k),
        )
        relevant_score = tf.gather(scores, relevant, batch_dims=1)
        return _ChunkRanking(top.item[:, :k], top.score[:, :k], num_reaching, relevant_score)


def evaluate_scorer(
    scorer: Scorer,
    cases: Cases,
    ks: Sequence[int] = LIST_LENGTHS,
    replicas: Replicas | None = None,
    is_both_ways: bool = False,
    tell: Callable[[int], object] = lambda _: None,
) -> Measurement:
    """Measures a scorer once; see `Evaluator` and its `measure`."""
    return Evaluator(scorer, cases, ks, replicas=replicas, is_both_ways=is_both_ways).measure(tell=tell)


def _pessimistic_ranks(ranking: _ChunkRanking, lengths: np.ndarray) -> np.ndarray:
    """[P] int64 ranks of the chunk's relevant items, pair after pair; beyond the K-th place or hidden: K or more.

    `lengths` [B] are the relevant items of each case of the chunk, without the queries that fill it up.
    """
    owner = np.repeat(np.arange(len(lengths)), lengths)
    is_pair = np.arange(ranking.relevant_score.shape[1]) < lengths[:, None]
    score = ranking.relevant_score[: len(lengths)][is_pair]  # [P]
    top = ranking.top_score[owner]
    is_last = score == top[:, -1]
    num_reaching = np.where(is_last, ranking.num_reaching[owner], (top >= score[:, None]).sum(axis=1))
    rank = num_reaching - _relevant_ties(owner, score)
    return np.where((score >= top[:, -1]) & (score > -np.inf), rank, np.iinfo(np.int64).max)


def _relevant_ties(owner: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[P] the case's relevant items of the same score that stand at or behind each, in any fixed order."""
    order = np.lexsort([score, owner])
    is_first = np.diff(owner[order], prepend=-1).astype(bool) | (score[order] != np.roll(score[order], 1))
    begins = np.append(np.flatnonzero(is_first), len(order))
    group = np.cumsum(is_first) - 1
    ties = np.empty(len(order), np.int64)
    ties[order] = begins[group + 1] - np.arange(len(order))
    return ties
