"""Compares the speed of the trainer's exact top-k of dot products with that of `implicit`'s C++, in interleaved runs.

Both find the best 20 of 235,000 items for 50,000 queries with 64 dimensions, as `recommend` does. On fewer queries,
both are also measured with ten seen items hidden. The trainer's top-k is also measured on whole rows of scores, because
the evaluator uses whole rows if a scorer cannot score a part of the catalogue.

`make setup` installs `implicit` from benchmarks/requirements.txt.

usage: python -m benchmarks.top_k
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
from trainer.models.top_items import TopItems, top_k
from trainer.ranking.histories import Histories
from trainer.ranking.pieces import best_items, visitors_at_once
from trainer.ranking.topk import chunk_size, query_chunks, query_signature

QUERIES, ITEMS, DIM, K = 50_000, 235_000, 64, 20
SEEN = 10
TURNS, FEW_TURNS = 10, 2
TARGETS = {"ratio": 0.9}


class _Products(tf.Module):
    def __init__(self, visitors: np.ndarray, items: np.ndarray) -> None:
        super().__init__()
        self._visitors, self._items = tf.Variable(visitors), tf.Variable(items)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return self.piece_scores(queries)(0, ITEMS)

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        """Returns a function that computes float32 scores [B, n] of n items. Its arguments are the first item and n."""
        visitors = tf.gather(self._visitors, queries.visitor)
        return lambda begin, size: tf.matmul(visitors, self._items[begin : begin + size], transpose_b=True)


def main() -> None:
    """Measures the trainer and `implicit` in interleaved runs."""
    generator = np.random.default_rng(0)
    visitors, items = (generator.normal(size=(rows, DIM)).astype(np.float32) for rows in (QUERIES, ITEMS))
    seen = generator.integers(0, ITEMS, (QUERIES, SEEN))
    plain, hiding, whole = _ours(visitors, items, seen)
    theirs, theirs_hiding = _implicit(visitors, items, seen)
    for ours in (plain, whole):
        _check_same(ours(slice(0, 500)), theirs(slice(0, 500)))
    _check_same(hiding(slice(0, 500)), theirs_hiding(slice(0, 500)))
    figures = {
        **_interleaved(plain, theirs, TURNS),
        "seen_hidden": _interleaved(hiding, theirs_hiding, FEW_TURNS),
        "whole_rows": _interleaved(whole, theirs, FEW_TURNS),
    }
    report("top_k", {**figures, "targets": TARGETS})


_Rank = Callable[[slice], np.ndarray]
"""A function that returns the best items [n, K] of a slice of n queries."""


def _ours(visitors: np.ndarray, items: np.ndarray, seen: np.ndarray) -> tuple[_Rank, _Rank, _Rank]:
    scorer = _Products(visitors, items)
    starts = np.arange(QUERIES) * SEEN
    zeros = np.zeros(seen.size, np.int64)
    history = Histories(item=seen.ravel(), event=zeros, timestamp_ms=zeros, begins=starts, ends=starts + SEEN)

    def rank(way: Callable[[Queries], TopItems], size: int) -> _Rank:
        compiled = tf.function(way, input_signature=[query_signature(size)])

        def rank_slice(queries: slice) -> np.ndarray:
            visitor = np.arange(queries.start, queries.stop)
            chunks = query_chunks(visitor, history.take(visitor), np.zeros_like(visitor), size)
            return np.concatenate([compiled(part).item.numpy()[: chunk.stop - chunk.start] for chunk, part in chunks])

        return rank_slice

    size = visitors_at_once(scorer, ITEMS)
    return (
        rank(lambda queries: best_items(scorer, queries, K, ITEMS, is_seen_hidden=False), size),
        rank(lambda queries: best_items(scorer, queries, K, ITEMS), size),
        rank(lambda queries: top_k(scorer.catalogue_scores(queries), K), chunk_size(ITEMS)),
    )


def _implicit(visitors: np.ndarray, items: np.ndarray, seen: np.ndarray) -> tuple[_Rank, _Rank]:
    hidden = sp.csr_matrix((np.ones(seen.size, np.float32), seen.ravel(), np.arange(QUERIES + 1) * SEEN))

    def rank(queries: slice, filtered: sp.csr_matrix | None) -> np.ndarray:
        best: np.ndarray = implicit.cpu.topk.topk(
            items, visitors[queries], K, filter_query_items=filtered, num_threads=os.cpu_count()
        )[0]
        return best

    return lambda queries: rank(queries, None), lambda queries: rank(queries, hidden[queries])


def _interleaved(ours: _Rank, theirs: _Rank, turns: int) -> dict[str, float]:
    """Returns the queries/s of both implementations, and the ratio of ours to theirs.

    Each turn ranks another tenth of the queries, first with ours, then with theirs.
    """
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
    """Checks that both implementations return the same items, except one in 1,000, because rounding can swap items.

    Raises:
      ValueError: more items differ.
    """
    share = float((ours == theirs).mean())
    if share < 0.999:
        raise ValueError(f"the two implementations agree on {share:.1%} of the best items; they must agree on 99.9%")


if __name__ == "__main__":
    main()
