"""The evaluator: ranks the whole catalogue for every case and finds the ranks of the relevant items.

If scores are equal, irrelevant items rank before relevant ones, so that a scorer with constant scores gains nothing
from the order of the catalogue.

Shapes: V cases in all, B cases in a chunk; in a chunk, P (case, relevant item) pairs, at most S seen and R relevant
items of a case; I items, K items in the longest list.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases
from trainer.evaluation.chunk_ranking import ChunkRanking, pessimistic_ranks, rank_policies
from trainer.evaluation.chunks import Chunk, Plan, make_plan
from trainer.evaluation.metrics import RelevantRanks, metric_values
from trainer.models.interface import Queries, Scorer
from trainer.ranking.topk import translate_divergence_errors

LIST_LENGTHS = (1, 5, 10, 20, 100)
"""The values of k in a report's metrics, such as 20 in `ndcg@20`."""

_THREADS = 2  # systems that rank at once: while one waits for a step with one thread, the other uses the other cores


@dataclass(frozen=True)
class Measurement:
    """Ranks of the relevant items, and counts of the recommended items, for one system."""

    ks: tuple[int, ...]
    """The list lengths k of the metrics."""
    ranks: RelevantRanks
    """Ranks of the relevant items in the primary ranking."""
    secondary_ranks: RelevantRanks | None
    """Ranks in the secondary ranking, where hidden items rank last; None if not requested."""
    available_ranks: RelevantRanks | None
    """Ranks in the primary ranking with only available items, where other items rank last; None if not requested."""
    times_recommended: dict[int, np.ndarray]
    """For each k: [I] int64, the number of lists of length k in the primary ranking that contain each item."""

    @cached_property
    def by_case(self) -> dict[str, np.ndarray]:
        """[V] values of each metric, such as `ndcg@10`, for the V cases in the primary ranking (see `Cases`)."""
        return metric_values(self.ranks, self.ks)

    def mean(self, name: str) -> float:
        """Mean of a metric, such as `ndcg@10`, over the cases in the primary ranking."""
        return float(self.by_case[name].mean())


class _Ranking:
    """Ranks chunks of cases with one scorer, and collects the results."""

    def __init__(self, scorer: Scorer, plan: Plan) -> None:
        self._scorer, self._plan = scorer, plan
        self._rank = tf.function(self._rank_chunk, input_signature=plan.signature, autograph=False)
        self._rank.get_concrete_function()  # else TensorFlow takes the traces of several systems for retracing
        self.reset()

    def reset(self) -> None:
        plan = self._plan
        self._ranks = [np.zeros(len(policy.relevant.values), np.int64) for policy in plan.policies.values()]
        # for each k, how often each item is in a list after the next lower k and up to this k
        self._added = np.zeros((len(plan.ks), plan.cases.num_items), np.int64)

    def add(self, chunk: Chunk) -> None:
        """Ranks a chunk with the scorer's current weights.

        Raises:
          ValueError: a score is NaN or infinite.
        """
        with translate_divergence_errors():
            rankings = self._rank(*chunk[1:])
        arrays = [ChunkRanking(*(part.numpy() for part in ranking)) for ranking in rankings]
        for rank, policy, ranking in zip(self._ranks, self._plan.policies.values(), arrays, strict=True):
            pairs = slice(*policy.relevant.starts[[chunk.cases.start, chunk.cases.stop]])
            rank[pairs] = pessimistic_ranks(ranking, policy.relevant.lengths[chunk.cases])
        self._count_recommended(arrays[0], chunk.cases.stop - chunk.cases.start)

    def result(self) -> Measurement:
        """Returns the measurement over the chunks of all workers."""
        plan, ranks, added = self._plan, self._ranks, self._added
        if plan.replicas is not None:  # each pair is ranked by one worker and is 0 on all others
            ranks = [plan.replicas.sum_over_workers(row) for row in ranks]
            added = plan.replicas.sum_over_workers(added)
        found = {
            name: RelevantRanks(row, policy.relevant.owner, policy.relevant.lengths)
            for row, (name, policy) in zip(ranks, plan.policies.items(), strict=True)
        }
        times_recommended = dict(zip(plan.ks, added.cumsum(axis=0), strict=True))
        return Measurement(plan.ks, found["primary"], found.get("secondary"), found.get("available"), times_recommended)

    def _rank_chunk(
        self, queries: Queries, seen: tf.Tensor, num_seen: tf.Tensor, relevant: list[tf.Tensor]
    ) -> list[ChunkRanking]:
        plan = self._plan
        policies = list(plan.policies.values())
        return rank_policies(
            self._scorer, queries, seen, num_seen, policies, relevant, plan.longest, plan.cases.num_items
        )

    def _count_recommended(self, ranking: ChunkRanking, count: int) -> None:
        """Counts how many recommendation lists of the chunk contain each item; rows from `count` on are padding."""
        items, is_visible = ranking.top_item[:count], ranking.top_score[:count] > -np.inf
        for row, (begin, end) in enumerate(itertools.pairwise([0, *self._plan.ks])):
            np.add.at(self._added[row], items[:, begin:end][is_visible[:, begin:end]], 1)


class Evaluator:
    """Measures a scorer on cases; `measure` may be called again after the scorer's weights change."""

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
        """Compiles the ranking.

        Args:
          scorer: a trained model or a baseline.
          ks: the list lengths; a list longer than the catalogue contains all items.
          scores_bytes: maximum memory of the scores of a chunk; None: see `ranking.topk.chunk_size`.
          replicas: all replicas; each worker ranks a part of the cases, and all workers get the same result. None: this
            process ranks all cases.
          with_secondary: whether to compute the secondary ranking too; see `Cases`.
          is_available: [I] bool: candidates of a third ranking, which is otherwise the primary ranking; None: no third
            ranking.

        Raises:
          ValueError: there are no cases, or a list length is below 1.
        """
        self._plan = make_plan(
            cases, ks, scores_bytes, replicas, with_secondary=with_secondary, is_available=is_available
        )
        self._ranking = _Ranking(scorer, self._plan)

    def measure(
        self, on_chunk: Callable[[], None] = lambda: None, on_progress: Callable[[int], object] = lambda _: None
    ) -> Measurement:
        """Ranks the catalogue for every case with the scorer's current weights.

        Calls `on_chunk` before each chunk, and `on_progress` with the number of cases ranked since its last call.

        Raises:
          ValueError: a score is NaN or infinite.
        """
        self._ranking.reset()

        def rank(chunk: Chunk) -> None:
            on_chunk()
            self._ranking.add(chunk)

        _for_each_chunk(self._plan, rank, on_progress)
        return self._ranking.result()


def evaluate_scorer(
    scorer: Scorer,
    cases: Cases,
    ks: Sequence[int] = LIST_LENGTHS,
    replicas: Replicas | None = None,
    with_secondary: bool = False,
    is_available: np.ndarray | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Measurement:
    """Measures a scorer once; `Evaluator` and `Evaluator.measure` explain the arguments."""
    evaluator = Evaluator(
        scorer, cases, ks, replicas=replicas, with_secondary=with_secondary, is_available=is_available
    )
    return evaluator.measure(on_progress=on_progress)


def evaluate_scorers(
    scorers: Mapping[str, Scorer],
    cases: Cases,
    ks: Sequence[int] = LIST_LENGTHS,
    replicas: Replicas | None = None,
    with_secondary: bool = False,
    is_available: np.ndarray | None = None,
    on_progress: Callable[[int], object] = lambda _: None,
) -> dict[str, Measurement]:
    """Measures several scorers like `evaluate_scorer`, but builds the queries of each chunk only once."""
    plan = make_plan(cases, ks, None, replicas, with_secondary=with_secondary, is_available=is_available)
    rankings = {name: _Ranking(scorer, plan) for name, scorer in scorers.items()}
    with ThreadPoolExecutor(_THREADS) as pool:

        def rank(chunk: Chunk) -> None:
            for done in [pool.submit(ranking.add, chunk) for ranking in rankings.values()]:
                done.result()

        _for_each_chunk(plan, rank, on_progress)
    return {name: ranking.result() for name, ranking in rankings.items()}


def _for_each_chunk(plan: Plan, rank: Callable[[Chunk], None], on_progress: Callable[[int], object]) -> None:
    num_ranked = 0
    for chunk in plan.chunks():
        rank(chunk)
        on_progress(chunk.cases.stop - num_ranked)
        num_ranked = chunk.cases.stop
    on_progress(len(plan.cases) - num_ranked)
