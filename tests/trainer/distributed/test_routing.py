"""The routing of a step does not grow with the number of replicas, and runs on GPUs."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from tests.trainer.distributed.gpu_kernels import not_on_a_gpu
from tests.trainer.distributed.test_collectives import trace_loop_body
from tests.trainer.tiny_runs import checkerboard_dataset, make_config
from trainer.data.dataset import Dataset
from trainer.distributed.all_to_all import CAPACITIES, Route
from trainer.distributed.collectives import Collectives
from trainer.distributed.replicas import Replicas, start_replicas


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


def first_worker_of(count: int) -> Replicas:
    """Returns the first of several workers of one device. Its graph can be traced without the others, but not run."""
    if count == 1:
        return start_replicas(1, None)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"], cross_device_ops=tf.distribute.ReductionToOneDevice())
    return Replicas(strategy, count, ("CPU:0",), 0, count, Collectives({0: "CPU:0"}, count))


@pytest.mark.parametrize(
    ("preset", "settings"), [("mf", []), ("mf", ["model.history_length=0"]), ("nn", []), ("notebook-nn", [])]
)
def test_a_step_runs_on_gpus_and_its_operations_do_not_grow_with_the_number_of_replicas(
    preset: str, settings: list[str], dataset: Dataset
) -> None:
    """All operations have GPU kernels, and large tensors stay on the GPU."""
    config = make_config(preset, *settings)
    (_, one), (body, four), (_, sixteen) = (
        trace_loop_body(config, dataset, first_worker_of(count)) for count in (1, 4, 16)
    )
    assert len(one) < len(four) == len(sixteen)
    assert list(not_on_a_gpu(function_def_to_graph(body))) == []


def test_operations_without_a_gpu_kernel_and_in_host_memory_are_found() -> None:
    @tf.function
    def routed(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = tf.zeros([0], tf.int64)
        counts = tf.raw_ops.DenseBincount(input=ids, size=tf.constant(4, tf.int64), weights=weights)
        return counts, tf.math.invert_permutation(ids)

    found = list(not_on_a_gpu(routed.get_concrete_function(tf.TensorSpec([None], tf.int64)).graph))
    assert [text.split()[0] for text in found] == ["DenseBincount", "InvertPermutation"]
    assert "no GPU kernel" in found[0]
    assert "in host memory" in found[1]


@pytest.mark.parametrize("count", [2, 4])
def test_messages_have_little_more_than_the_least_bytes(count: int) -> None:
    """The minimum sends each distinct row once to every other replica that uses it, and its gradient back."""
    replicas, dim, size = start_replicas(count, None), 64, 8_192 // count
    ids = np.random.default_rng(0).zipf(1.2, 8_192) % 100_000

    def on_replica(replica: int) -> tuple[tf.Tensor, tf.Tensor]:
        own = tf.constant(ids[replica * size : (replica + 1) * size])
        messages = Route.by_row(replicas, replica, own).messages
        return messages.counts, messages.capacity

    counts, capacity = (value.numpy() for value in tf.function(lambda: replicas.run(on_replica))())
    np.testing.assert_array_equal(
        counts,
        [np.bincount(np.unique(own) % count, minlength=count) for own in ids.reshape(count, size)],
    )
    rows = counts.sum() - counts.trace()
    least = rows * 2 * dim * 4
    gathered_counts = count * (count - 1) * count * 8
    assert rows * (2 * dim * 4 + 8) + gathered_counts <= 1.02 * least
    # padding: of the longest message to the next capacity
    assert counts.max() <= capacity <= 1.02 * counts.max() + 1
    assert capacity in CAPACITIES
