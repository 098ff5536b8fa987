"""`add_tensors` is safe in functions that several threads call, unlike chains of additions."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.optimized_graphs import large_sums
from trainer.models.sums import add_tensors

Sum = Callable[[Sequence[tf.Tensor]], tf.Tensor]
ROWS, COLUMNS = 64, 200_000  # 51 MB: five tensors need more than the 205 MB from which AddN is replaced


def make_function(add: Sum, shape: list[int | None]) -> tf.types.experimental.ConcreteFunction:
    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def function(value: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(add([tf.sin(value), tf.cos(value), tf.exp(-value), tf.tanh(value), tf.sqrt(value)]))

    return function


@pytest.mark.parametrize("terms", [[2.0], [2.0, 3.0], [2.0, 3.0, 5.0, 7.0]])
def test_the_sum_is_that_of_all_terms(terms: list[float]) -> None:
    assert add_tensors([tf.constant([term, 2 * term]) for term in terms]).numpy().tolist() == [
        sum(terms),
        2 * sum(terms),
    ]


@pytest.mark.parametrize(("add", "num_sums"), [(tf.add_n, 1), (lambda terms: sum(terms[1:], terms[0]), 1)])
def test_other_sums_of_many_tensors_are_found(add: Sum, num_sums: int) -> None:
    function = make_function(add, [None, 100])
    assert len(large_sums(lambda: function(tf.ones([2, 100])))) == num_sums


@pytest.mark.parametrize("shape", [[2, 100], [None, 100], [None, None]])
def test_the_sum_is_not_merged(shape: list[int | None]) -> None:
    function = make_function(add_tensors, shape)
    assert not large_sums(lambda: function(tf.ones([2, 100])))


def test_functions_with_large_sums_run_at_the_same_time() -> None:
    functions = [make_function(add_tensors, [ROWS, COLUMNS]) for _ in range(2)]
    # sin 0 + cos 0 + exp 0 + tanh 0 + sqrt 0
    with ThreadPoolExecutor(2) as pool:
        for _ in range(4):
            results = pool.map(lambda function: function(tf.zeros([ROWS, COLUMNS])), functions)
            np.testing.assert_allclose([result.numpy() for result in results], [2.0, 2.0], rtol=1e-3)
