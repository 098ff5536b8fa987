"""The ranking of a chunk stays on a GPU: it hides, merges and counts without large tensors in host memory."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from tests.trainer.distributed.gpu_kernels import not_on_a_gpu
from tests.trainer.ranking.fakes import DotModel, lists_of
from trainer.evaluation.chunk_ranking import rank_policies
from trainer.evaluation.chunks import Policy
from trainer.models.interface import Queries
from trainer.ranking.topk import query_signature

ITEMS = 2000
"""Items of the catalogue: enough for the search by blocks, with lists of 5."""
NONE = lists_of([])


def outside_a_gpu(policies: list[Policy]) -> Iterator[str]:
    """Names the operations of the ranking of a chunk, and of its branches, that do not run on a GPU."""
    scorer = DotModel(np.ones((3, 4)), np.ones((ITEMS, 4)), np.arange(ITEMS))

    @tf.function(autograph=False)
    def rank(queries: Queries, seen: tf.Tensor, num_seen: tf.Tensor, relevant: tf.Tensor) -> list:
        found = [relevant] * len(policies)
        return rank_policies(scorer, queries, seen, num_seen, policies, found, 5, ITEMS)

    items = tf.TensorSpec([None, None], tf.int64)
    graph = rank.get_concrete_function(query_signature(None), items, tf.TensorSpec([None], tf.int64), items).graph
    yield from not_on_a_gpu(graph)
    for function in graph.as_graph_def().library.function:
        yield from not_on_a_gpu(function_def_to_graph(function))


def test_a_chunk_is_ranked_on_a_gpu() -> None:
    available = Policy(True, NONE, np.arange(ITEMS) % 2 == 0)
    assert list(outside_a_gpu([Policy(True, NONE), Policy(False, NONE), available])) == []


def test_ties_that_are_counted_in_host_memory_are_found() -> None:
    @tf.function
    def count(scores: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(scores >= 1, tf.int32), axis=1)

    graph = count.get_concrete_function(tf.TensorSpec([None, ITEMS], tf.float32)).graph
    assert [found.split()[0] for found in not_on_a_gpu(graph)] == ["Sum", "Identity"]
