"""Exact top-k of dot products over a whole catalogue: ours against `implicit`'s C++, on the same cores in turns.

Both give the 20 best of 235,000 items for 50,000 queries at d 64. Beside it, of fewer queries: the way the evaluator
and `recommend` go, which also refuses scores that are not finite and hides ten seen items; `implicit` hides the same.

usage: python -m benchmarks.top_k   (pip install -r benchmarks/requirements.txt)
"""

import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import implicit.cpu.topk
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from benchmarks.harness import report
from trainer.models.interface import Queries
from trainer.ranking.histories import Histories
from trainer.ranking.topk import TopItems, chunk_size, query_chunks, query_signature, top_k, visible_scores

QUERIES, ITEMS, DIM, K = 50_000, 235_000, 64, 20
SEEN = 10
TURNS, HIDING_TURNS = 10, 2
TARGETS = {"ratio": 0.9}


class _Products(tf.Module):
    """Scores a visitor's vector with every item's."""

    def __init__(self, visitors: np.ndarray, items: np.ndarray) -> None:
        super().__init__()
        self._visitors, self._items = tf.Variable(visitors), tf.Variable(items)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32."""
        return tf.matmul(tf.gather(self._visitors, queries.visitor), self._items, transpose_b=True)


def main() -> None:
    """Measures both ways in turns, so that what else runs on the machine meets both."""
    generator = np.random.default_rng(0)
    visitors, items = (generator.normal(size=(rows, DIM)).astype(np.float32) for rows in (QUERIES, ITEMS))
    seen = generator.integers(0, ITEMS, (QUERIES, SEEN))
    ours, ours_hiding = _ours(visitors, items, seen)
    theirs, theirs_hiding = _implicit(visitors, items, seen)
    _check_same(ours(slice(0, 500)), theirs(slice(0, 500)))
    plain = _in_turns(ours, theirs, TURNS)
    hiding = _in_turns(ours_hiding, theirs_hiding, HIDING_TURNS)
    report("top_k", {**plain, "seen_hidden": hiding, "targets": TARGETS})


_Rank = Callable[[slice], np.ndarray]
"""The items [n, K] of a stretch of the queries."""


def _ours(visitors: np.ndarray, items: np.ndarray, seen: np.ndarray) -> tuple[_Rank, _Rank]:
    scorer, size = _Products(visitors, items), chunk_size(ITEMS)
    place = np.arange(QUERIES) * SEEN
    zeros = np.zeros(seen.size, np.int64)
    history = Histories(item=seen.ravel(), event=zeros, timestamp_ms=zeros, begins=place, ends=place + SEEN)

    @tf.function(input_signature=[query_signature(size)])
    def plain(queries: Queries) -> TopItems:
        return top_k(scorer.catalogue_scores(queries), K)

    @tf.function(input_signature=[query_signature(size)])
    def hiding(queries: Queries) -> TopItems:
        return top_k(visible_scores(scorer, queries, is_seen_hidden=True), K)

    def rank(way: Callable[[Queries], TopItems], queries: slice) -> np.ndarray:
        visitor = np.arange(queries.start, queries.stop)
        chunks = query_chunks(visitor, history.take(visitor), np.zeros_like(visitor), size)
        return np.concatenate([way(part).item.numpy()[: chunk.stop - chunk.start] for chunk, part in chunks])

    return lambda queries: rank(plain, queries), lambda queries: rank(hiding, queries)


def _implicit(visitors: np.ndarray, items: np.ndarray, seen: np.ndarray) -> tuple[_Rank, _Rank]:
    hidden = sp.csr_matrix((np.ones(seen.size, np.float32), seen.ravel(), np.arange(QUERIES + 1) * SEEN))

    def rank(queries: slice, filtered: sp.csr_matrix | None) -> np.ndarray:
        best: np.ndarray = implicit.cpu.topk.topk(
            items, visitors[queries], K, filter_query_items=filtered, num_threads=os.cpu_count()
        )[0]
        return best

    return lambda queries: rank(queries, None), lambda queries: rank(queries, hidden[queries])


def _in_turns(ours: _Rank, theirs: _Rank, turns: int) -> dict[str, float]:
    """Queries/s of both ways over `turns` tenths of the queries, and their ratio."""
    share = QUERIES // TURNS
    seconds = {"ours": 0.0, "implicit": 0.0}
    for turn in range(turns):
        for name, rank in (("ours", ours), ("implicit", theirs)):
            begin = time.perf_counter()
            rank(slice(turn * share, (turn + 1) * share))
            seconds[name] += time.perf_counter() - begin
    return {
        "ours_per_second": round(turns * share / seconds["ours"]),
        "implicit_per_second": round(turns * share / seconds["implicit"]),
        "ratio": round(seconds["implicit"] / seconds["ours"], 2),
    }


def _check_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Products summed in another order may change places: all but a few must be the same."""
    share = float((ours == theirs).mean())
    if share < 0.999:
        raise ValueError(f"the two ways give other items: only {share:.1%} are the same")


if __name__ == "__main__":
    main()
