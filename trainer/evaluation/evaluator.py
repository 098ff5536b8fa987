"""The evaluator: ranks the whole catalogue for every case and finds the ranks of the relevant items.

Ties count against the system: an irrelevant item with the same score is ranked before a relevant one, so that a scorer
with constant scores gains nothing from the order of the catalogue.

Shapes: B cases of a chunk, V cases, P (case, relevant item) pairs, R most relevant items of a case in the chunk,
I items, K longest list.
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
    check_finite,
    chunk_size,
    hide,
    query_chunks,
    query_signature,
    scores_for,
    top_k,
    translate_divergence_errors,
    withhold,
)

LIST_LENGTHS = (1, 5, 10, 20, 100)
"""The K of every metric in a report."""


@dataclass(frozen=True)
class Measurement:
    """The result of one system."""

    ks: tuple[int, ...]
    """The list lengths."""
    ranks: RelevantRanks
    """Ranks of the relevant items in the primary ranking."""
    secondary_ranks: RelevantRanks | None
    """Ranks of the relevant items in the secondary ranking, where hidden items rank last; None if not requested."""
    available_ranks: RelevantRanks | None
    """Ranks of the relevant items in the primary ranking of available items only, where all others rank last; None if
    not requested."""
    times_recommended: dict[int, np.ndarray]
    """[I] int64, by k: in how many lists of k of the primary ranking each item is."""

    @cached_property
    def by_case(self) -> dict[str, np.ndarray]:
        """The values [V] of each metric of the primary ranking, by name: `ndcg@10`."""
        return metric_values(self.ranks, self.ks)

    def mean(self, name: str) -> float:
        """A metric's mean over the cases."""
        return float(self.by_case[name].mean())


class _Policy(NamedTuple):
    """The candidates of a ranking, with its relevant items."""

    hides_seen: bool
    """Whether the items of the history are hidden."""
    relevant: Lists
    """V lists of relevant items."""
    is_available: np.ndarray | None = None
    """[I] bool: the candidates; None: all items."""


class _ChunkRanking(NamedTuple):
    """The ranking of one chunk."""

    top_item: tf.Tensor
    """[B, K] int64."""
    top_score: tf.Tensor
    """[B, K] float32, descending; -inf for hidden items."""
    num_reaching: tf.Tensor
    """[B] int32: how many items have at least the K-th score."""
    relevant_score: tf.Tensor
    """[B, R] float32; arbitrary after the case's relevant items."""


class Evaluator:
    """Measures a scorer on cases; compiled once, it can measure again after the scorer's weights change."""

    def __init__(
        self,
        scorer: Scorer,
        cases: Cases,
        ks: Sequence[int] = LIST_LENGTHS,
        scores_bytes: int | None = None,
        replicas: Replicas | None = None,
        with_secondary: bool = False,
        is_available: np.ndarray | None = None,
    ):
        """Prepares a compiled ranking.

        Args:
          scorer: a trained model or a baseline.
          cases: the cases and their relevant items.
          ks: the list lengths; lengths above the size of the catalogue mean the whole catalogue.
          scores_bytes: memory for the scores of a chunk; by default a good value for the device.
          replicas: their workers share the chunks; all get the same measurement.
          with_secondary: also compute the secondary ranking.
          is_available: [I] bool: also compute the primary ranking with only these items as candidates.

        Raises:
          ValueError: there are no cases, or a list length is below 1.
        """
        if not len(cases):
            raise ValueError(
                "nothing to rank: no visitor with a history has a relevant item that training knows; prepare the "
                "dataset with a longer window"
            )
        if min(ks) < 1:
            raise ValueError(f"list lengths must be at least 1, got {list(ks)}")
        self._scorer, self._cases, self._ks, self._replicas = scorer, cases, tuple(sorted(set(ks))), replicas
        self._policies = {"primary": _Policy(cases.hides_seen, cases.relevant)}
        if with_secondary:
            self._policies["secondary"] = _Policy(not cases.hides_seen, cases.secondary_relevant)
        if is_available is not None:
            self._policies["available"] = _Policy(cases.hides_seen, cases.relevant, is_available)
        self._longest = min(max(ks), cases.num_items)
        self._chunk_size = chunk_size(cases.num_items, scores_bytes)
        relevant = [tf.TensorSpec([self._chunk_size, None], tf.int64)] * len(self._policies)
        signature = [query_signature(self._chunk_size), relevant]
        self._rank = tf.function(self._rank_chunk, input_signature=signature, autograph=False)

    def measure(
        self, on_chunk: Callable[[], None] = lambda: None, on_progress: Callable[[int], object] = lambda _: None
    ) -> Measurement:
        """Ranks the catalogue for every case with the scorer's current weights.

        Args:
          on_chunk: called before each chunk; an exception from it ends the measurement.
          on_progress: called with the number of cases ranked since the last call, by all workers.

        Raises:
          ValueError: a score is NaN or infinite.
        """
        cases = self._cases
        ranks = [np.zeros(len(policy.relevant.values), np.int64) for policy in self._policies.values()]
        added = np.zeros((len(self._ks), cases.num_items), np.int64)  # per k: at positions from the next lower k on
        num_ranked = 0
        for chunk, queries in query_chunks(
            cases.visitor, cases.history, cases.timestamp_ms, self._chunk_size, self._replicas
        ):
            on_chunk()
            padded = [policy.relevant.padded(chunk.start, chunk.stop) for policy in self._policies.values()]
            filled = [np.pad(rows, ((0, self._chunk_size - len(rows)), (0, 0))) for rows in padded]
            with translate_divergence_errors():
                rankings = self._rank(queries, [tf.constant(rows) for rows in filled])
            for row, policy, ranking in zip(ranks, self._policies.values(), rankings, strict=True):
                pairs = slice(*policy.relevant.starts[[chunk.start, chunk.stop]])
                arrays = _ChunkRanking(*(part.numpy() for part in ranking))
                row[pairs] = _pessimistic_ranks(arrays, policy.relevant.lengths[chunk])
            self._count_recommended(added, rankings[0], chunk.stop - chunk.start)
            on_progress(chunk.stop - num_ranked)
            num_ranked = chunk.stop
        on_progress(len(cases) - num_ranked)
        if self._replicas is not None:  # each pair is ranked by one worker and is 0 on all others
            ranks = [self._replicas.sum_over_workers(row) for row in ranks]
            added = self._replicas.sum_over_workers(added)
        found = {
            name: RelevantRanks(row, policy.relevant.owner, policy.relevant.lengths)
            for row, (name, policy) in zip(ranks, self._policies.items(), strict=True)
        }
        times_recommended = dict(zip(self._ks, added.cumsum(axis=0), strict=True))
        return Measurement(
            self._ks, found["primary"], found.get("secondary"), found.get("available"), times_recommended
        )

    def _count_recommended(self, added: np.ndarray, ranking: _ChunkRanking, count: int) -> None:
        """Counts the items of the lists of the first `count` cases of a chunk in `added` [len(ks), I]."""
        items, is_visible = ranking.top_item.numpy()[:count], ranking.top_score.numpy()[:count] > -np.inf
        for row, (begin, end) in enumerate(itertools.pairwise([0, *self._ks])):
            np.add.at(added[row], items[:, begin:end][is_visible[:, begin:end]], 1)

    def _rank_chunk(self, queries: Queries, relevant: list[tf.Tensor]) -> list[_ChunkRanking]:
        """The primary ranking and the others that were requested."""
        scores = scores_for(self._scorer, queries)
        hides = {policy.hides_seen for policy in self._policies.values()}
        visible = {
            is_hidden: hide(check_finite(scores(is_hidden)), queries.history, queries.history_length, is_hidden)
            for is_hidden in hides
        }
        return [
            self._rank_scores(withhold(visible[policy.hides_seen], policy.is_available), items)
            for policy, items in zip(self._policies.values(), relevant, strict=True)
        ]

    def _rank_scores(self, scores: tf.Tensor, relevant: tf.Tensor) -> _ChunkRanking:
        k = self._longest
        top = top_k(scores, min(k + 1, self._cases.num_items))
        last = top.score[:, k - 1 : k]
        # only if the next item ties with the K-th, which is rare, can more than K items reach its score: then count all
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
    with_secondary: bool = False,
    is_available: np.ndarray | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Measurement:
    """Measures a scorer once; see `Evaluator` and its `measure`."""
    evaluator = Evaluator(
        scorer, cases, ks, replicas=replicas, with_secondary=with_secondary, is_available=is_available
    )
    return evaluator.measure(on_progress=on_progress)


def _pessimistic_ranks(ranking: _ChunkRanking, lengths: np.ndarray) -> np.ndarray:
    """[P] int64 ranks of the chunk's relevant items; K or more for hidden items and after the K-th.

    `lengths` [B] are the numbers of relevant items of each case of the chunk, without padding queries.
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
    """[P] for each item, how many of the case's relevant items with the same score are at or after it, in any order."""
    order = np.lexsort([score, owner])
    is_first = np.diff(owner[order], prepend=-1).astype(bool) | (score[order] != np.roll(score[order], 1))
    begins = np.append(np.flatnonzero(is_first), len(order))
    group = np.cumsum(is_first) - 1
    ties = np.empty(len(order), np.int64)
    ties[order] = begins[group + 1] - np.arange(len(order))
    return ties
