"""Ranks one chunk of cases by every policy, and finds the ranks of the relevant items.

A policy determines the items that a ranking may contain. The whole catalogue is searched only once, without the seen
items. The ranking that shows seen items is this result with the seen items merged in.

Shapes: B cases of a chunk, P (case, relevant item) pairs, at most S seen and R relevant items of a case in the chunk,
I items, K items of the longest list.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.evaluation.chunks import Policy
from trainer.models.interface import PolicyScorer, Queries, Scorer
from trainer.models.sums import add_tensors
from trainer.models.top_items import TopItems, add_items, top_k
from trainer.ranking.topk import check_finite, hide, scores_for, withhold


class ChunkRanking(NamedTuple):
    """The ranking of one chunk of cases by one `Policy`."""

    top_item: tf.Tensor
    """[B, K] int64: the best items, best first."""
    top_score: tf.Tensor
    """[B, K] float32, descending; -inf for hidden items."""
    num_reaching: tf.Tensor
    """[B] int64: number of items that score at least as high as the K-th item."""
    relevant_score: tf.Tensor
    """[B, R] float32: scores of the relevant items; padded with arbitrary values."""


class _Candidates(NamedTuple):
    """The candidates of a ranking."""

    scores: list[tf.Tensor]
    """Arrays of scores [B, …]. Each candidate's score is in exactly one array; all other entries are -inf."""
    top: TopItems
    """The best K + 1 candidates, or all I items."""


def rank_policies(
    scorer: Scorer,
    queries: Queries,
    seen: tf.Tensor,
    num_seen: tf.Tensor,
    policies: Sequence[Policy],
    relevant: Sequence[tf.Tensor],
    longest: int,
    num_items: int,
) -> list[ChunkRanking]:
    """Ranks the catalogue for the queries of a chunk, once for each policy.

    Args:
      seen: [B, S] distinct items of the histories of B queries, see `chunks.Chunk`.
      num_seen: [B] number of items in each row of `seen`, without padding.
      policies: each determines the candidates and the relevant items of one ranking.
      relevant: for each policy, the relevant items [B, R], see `chunks.Chunk`.
      longest: length of the longest list, K.
      num_items: number of items, I.

    Raises:
      tf.errors.InvalidArgumentError: a score is NaN or infinite.
    """
    num_top = min(longest + 1, num_items)  # the item after the list shows whether it ties with the last one
    visible, candidates = {}, {}
    scores_of, hides = scores_for(scorer, queries), {policy.hides_seen for policy in policies}
    if True in hides:
        visible[True] = hide(check_finite(scores_of(True)), seen, num_seen)
        candidates[True] = _search(visible[True], num_top)
    if False in hides:
        is_searched_once = True in hides and not isinstance(scorer, PolicyScorer)  # then both have the same scores
        visible[False] = scores_of(False) if is_searched_once else check_finite(scores_of(False))
        candidates[False] = (
            _add_seen(candidates[True], visible[False], seen, num_seen)
            if is_searched_once
            else _search(visible[False], num_top)
        )
    rankings = []
    for policy, items in zip(policies, relevant, strict=True):
        scores, found = visible[policy.hides_seen], candidates[policy.hides_seen]
        if policy.is_available is not None:
            scores = withhold(scores, policy.is_available)
            found = _search(scores, num_top)
        rankings.append(_make_ranking(found, tf.gather(scores, items, batch_dims=1), longest))
    return rankings


def _search(scores: tf.Tensor, num_top: int) -> _Candidates:
    return _Candidates([scores], top_k(scores, num_top))


def _add_seen(hidden: _Candidates, scores: tf.Tensor, seen: tf.Tensor, num_seen: tf.Tensor) -> _Candidates:
    """Adds the seen items to the candidates `hidden`, which lack them. `seen`: [B, S]; `num_seen`: [B] row lengths."""
    is_item = tf.sequence_mask(num_seen, tf.shape(seen, tf.int64)[1])
    seen_scores = tf.where(is_item, tf.gather(scores, seen, batch_dims=1), -np.inf)
    top = add_items(hidden.top, seen, seen_scores)
    return _Candidates([*hidden.scores, seen_scores], top)


def _make_ranking(candidates: _Candidates, relevant_score: tf.Tensor, longest: int) -> ChunkRanking:
    top = candidates.top
    last = top.score[:, longest - 1 : longest]
    # more than K items reach the K-th score only if the next item ties with it; this is rare, so all are counted then
    num_reaching = tf.cond(
        tf.reduce_any(top.score[:, longest:] == last),
        # int64, because TensorFlow sums int32 in host memory
        lambda: add_tensors([tf.reduce_sum(tf.cast(part >= last, tf.int64), axis=1) for part in candidates.scores]),
        lambda: tf.fill(tf.shape(last)[:1], tf.constant(longest, tf.int64)),
    )
    return ChunkRanking(top.item[:, :longest], top.score[:, :longest], num_reaching, relevant_score)


def pessimistic_ranks(ranking: ChunkRanking, lengths: np.ndarray) -> np.ndarray:
    """[P] int64: rank of each relevant item; the best item has rank 0.

    A relevant item ranks after all irrelevant items with the same score. Ranks outside the K best items are only known
    to be at least K.

    Args:
      ranking: the rankings of all cases, as NumPy arrays.
      lengths: the number of relevant items of each case, without padding.
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
    """[P] int64: position (1, 2, …) of each relevant item among the relevant items with the same case and score.

    `owner`: [P] index of the case of each relevant item.
    """
    order = np.lexsort([score, owner])
    is_first = np.diff(owner[order], prepend=-1).astype(bool) | (score[order] != np.roll(score[order], 1))
    begins = np.append(np.flatnonzero(is_first), len(order))
    group = np.cumsum(is_first) - 1
    ties = np.empty(len(order), np.int64)
    ties[order] = begins[group + 1] - np.arange(len(order))
    return ties
