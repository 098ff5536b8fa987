import numpy as np
import pytest
import tensorflow as tf

from trainer.distributed.cluster import Cluster
from trainer.distributed.preemption import Preempted
from trainer.distributed.replicas import check_batch_divides, preempt_on_worker_loss, rows_owned, start_replicas


@pytest.mark.parametrize(("batch_size", "replicas", "nearest"), [(100, 8, "96 or 104"), (3, 4, "4"), (9, 2, "8 or 10")])
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_sizes(
    batch_size: int, replicas: int, nearest: str
) -> None:
    message = f"input.batch_size={batch_size} is not divisible by {replicas} replicas; use {nearest}$"
    with pytest.raises(ValueError, match=message):
        check_batch_divides(batch_size, replicas)


def test_a_batch_that_divides_is_accepted() -> None:
    check_batch_divides(96, 8)
    check_batch_divides(7, 1)


def test_every_row_has_one_owner() -> None:
    # 10 rows, 4 replicas: 0 4 8 | 1 5 9 | 2 6 | 3 7
    assert [rows_owned(10, replica, 4) for replica in range(4)] == [3, 3, 2, 2]
    assert [rows_owned(1, replica, 4) for replica in range(4)] == [1, 0, 0, 0]
    assert [rows_owned(0, replica, 4) for replica in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_sums_and_gathers_cover_all_replicas(count: int) -> None:
    replicas = start_replicas(count, None)

    @tf.function
    def run(value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def on_replica(replica: int, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            own = value + replica
            return replicas.all_reduce(own), replicas.all_gather(own)

        return replicas.run(on_replica, value)

    summed, gathered = run(tf.constant([10.0]))
    # 10 + 11 + 12 + 13 = 46 for four
    np.testing.assert_allclose(summed, [sum(10 + replica for replica in range(count))])
    np.testing.assert_allclose(gathered, [10 + replica for replica in range(count)])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_tensors_that_are_summed_together_keep_their_shapes(count: int) -> None:
    replicas = start_replicas(count, None)

    def on_replica(replica: int) -> list[tf.Tensor]:
        values = [tf.constant(1.0), tf.constant([[2.0, 3.0], [4.0, 5.0]]), tf.constant([6.0])]
        return replicas.all_reduce_together([value * (replica + 1) for value in values])

    scalar, matrix, vector = tf.function(lambda: replicas.run(on_replica))()
    # 1 + 2 + 3 + 4 = 10 times the values for four
    factor = {1: 1, 2: 3, 4: 10}[count]
    np.testing.assert_array_equal(scalar, factor)
    np.testing.assert_array_equal(matrix, [[2 * factor, 3 * factor], [4 * factor, 5 * factor]])
    np.testing.assert_array_equal(vector, [6 * factor])


def test_a_single_process_is_the_chief_and_does_not_wait() -> None:
    replicas = start_replicas(2, None)
    assert replicas.is_chief
    assert list(replicas.local) == [0, 1]
    replicas.wait_for_all()


def test_more_cpus_than_tensorflow_started_with_are_refused() -> None:
    tf.zeros([])  # starts TensorFlow, with the four logical CPUs of conftest
    with pytest.raises(ValueError, match="devices=5 cannot be applied, because TensorFlow already runs with 4"):
        start_replicas(5, None)


@pytest.mark.parametrize("error", [tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError])
def test_a_worker_that_loses_another_is_preempted_and_a_single_process_fails(error: type[Exception]) -> None:
    lost = error(None, None, "Socket closed")
    with (
        pytest.raises(Preempted, match=f"worker 1 lost .* another of the 3 workers \\({error.__name__}\\)"),
        preempt_on_worker_loss(Cluster(("a:1", "b:1", "c:1"), 1)),
    ):
        raise lost
    with pytest.raises(error), preempt_on_worker_loss(None):
        raise lost


def test_an_error_inside_a_worker_is_raised_unchanged() -> None:
    with pytest.raises(ValueError, match="wrong"), preempt_on_worker_loss(Cluster(("a:1", "b:1"), 0)):
        raise ValueError("wrong")
