"""Divides the cases of an evaluation into chunks; all systems rank a chunk before the next chunk is built.

Shapes: V cases in all, B cases in a chunk; in a chunk, at most S seen and R relevant items of a case; I items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases
from trainer.models.interface import Queries
from trainer.ranking.lists import Lists
from trainer.ranking.topk import chunk_size, query_chunks, query_signature


class Policy(NamedTuple):
    """Determines the candidates and the relevant items of a ranking."""

    hides_seen: bool
    """Whether the items of the history are hidden."""
    relevant: Lists
    """V lists of relevant items."""
    is_available: np.ndarray | None = None
    """[I] bool: whether an item may be a candidate; None: all items may."""


class Chunk(NamedTuple):
    """A chunk of at most B cases. Arrays have B rows; if there are fewer cases, the last rows are padding."""

    cases: slice
    """Indices of the cases, without the padding."""
    queries: Queries
    """B queries."""
    seen: tf.Tensor
    """[B, S] int64: the distinct vocabulary items of each case's history, padded with arbitrary items."""
    num_seen: tf.Tensor
    """[B] int64: number of items in each row of `seen`, without padding."""
    relevant: list[tf.Tensor]
    """For each policy: [B, R] int64 relevant items of each case, padded with arbitrary items; `Policy.relevant` has
    their numbers."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cases of an evaluation, and the rankings to compute for them."""

    cases: Cases
    """V cases, at least 1."""
    ks: tuple[int, ...]
    """The list lengths, ascending."""
    policies: dict[str, Policy]
    """The rankings by name; `primary` is the first."""
    chunk_size: int
    """Number of cases per chunk, B."""
    replicas: Replicas | None
    """All replicas; their workers share the chunks. None: this process ranks all chunks."""

    @property
    def longest(self) -> int:
        """The length of the longest recommendation list: the largest of `ks`, but at most the number of items."""
        return min(self.ks[-1], self.cases.num_items)

    @property
    def signature(self) -> list[object]:
        """The `tf.function` input signature for all fields of a `Chunk` except `cases`."""
        items, count = tf.TensorSpec([self.chunk_size, None], tf.int64), tf.TensorSpec([self.chunk_size], tf.int64)
        return [query_signature(self.chunk_size), items, count, [items] * len(self.policies)]

    def chunks(self) -> Iterator[Chunk]:
        """Yields the chunks of this worker, or all chunks if there is only one process."""
        cases = self.cases
        for chunk, queries in query_chunks(
            cases.visitor, cases.history, cases.timestamp_ms, self.chunk_size, self.replicas
        ):
            seen = cases.history.distinct_items(chunk.start, chunk.stop, cases.num_items)
            relevant = [policy.relevant.padded(chunk.start, chunk.stop) for policy in self.policies.values()]
            yield Chunk(
                chunk,
                queries,
                self._filled_up(seen.padded(0, len(seen))),
                self._filled_up(seen.lengths),
                [self._filled_up(rows) for rows in relevant],
            )

    def _filled_up(self, rows: np.ndarray) -> tf.Tensor:
        """[B, …]: `rows`, followed by rows of zeros."""
        return tf.constant(np.pad(rows, [(0, self.chunk_size - len(rows))] + [(0, 0)] * (rows.ndim - 1)))


def make_plan(
    cases: Cases,
    ks: Sequence[int],
    scores_bytes: int | None = None,
    replicas: Replicas | None = None,
    *,
    with_secondary: bool = False,
    is_available: np.ndarray | None = None,
) -> Plan:
    """Returns the plan of an evaluation. `evaluator.Evaluator` explains the arguments.

    Raises:
      ValueError: there are no cases, or a list length is below 1.
    """
    if not len(cases):
        raise ValueError(
            f"there is nothing to evaluate: no event of the kinds {', '.join(cases.kinds)} in the evaluated split has "
            "an item that can be recommended and a visitor with earlier events; prepare the dataset with a longer "
            "split (for validation, an earlier --validation-from or a larger split.validation_share; for test, an "
            "earlier --test-from or a larger split.test_share)"
        )
    if min(ks) < 1:
        raise ValueError(f"list lengths must be at least 1, got {list(ks)}")
    policies = {"primary": Policy(cases.hides_seen, cases.relevant)}
    if with_secondary:
        policies["secondary"] = Policy(not cases.hides_seen, cases.secondary_relevant)
    if is_available is not None:
        policies["available"] = Policy(cases.hides_seen, cases.relevant, is_available)
    size = chunk_size(cases.num_items, scores_bytes)
    return Plan(cases=cases, ks=tuple(sorted(set(ks))), policies=policies, chunk_size=size, replicas=replicas)
