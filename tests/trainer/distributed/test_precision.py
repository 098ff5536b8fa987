"""Only a GPU computes in TensorFloat-32; the tests check the switch that its kernels read."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from cartwheel.recommender import Recommender
from tests.trainer.ranking.fakes import histories_of
from tests.trainer.training.test_als import ITEMS, VISITORS, make_tables
from trainer.config.optimizers import AlternatingConfig
from trainer.distributed.precision import full_float32
from trainer.distributed.replicas import start_replicas
from trainer.ranking.topk import query_chunks
from trainer.training.als import AlternatingSolver


def is_reduced() -> bool:
    return bool(tf.config.experimental.tensor_float_32_execution_enabled())


def test_the_last_of_several_threads_restores_the_precision() -> None:
    assert is_reduced(), "TensorFlow's default has changed"
    first, second = full_float32(), full_float32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not is_reduced()
    second.__exit__(None, None, None)
    assert is_reduced()


def test_an_error_restores_the_precision() -> None:
    with pytest.raises(ValueError, match="diverged"), full_float32():
        raise ValueError("diverged")
    assert is_reduced()


def test_chunks_are_ranked_in_full_precision() -> None:
    found = [is_reduced() for _ in query_chunks(np.arange(3), histories_of([[0], [1], [0]]), np.zeros(3, np.int64), 2)]
    assert found == [False, False]
    assert is_reduced()


def test_a_loaded_export_ranks_in_full_precision() -> None:
    found = []

    def score(**_: tf.Tensor) -> dict[str, tf.Tensor]:
        found.append(is_reduced())
        return {"score": tf.zeros([1])}

    Recommender(SimpleNamespace(signatures={"score": score})).score("visitor", ["item"])
    assert found == [False]


def test_normal_equations_are_solved_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = sp.csr_matrix(np.ones((VISITORS, ITEMS), np.float32))
    tables = make_tables(np.random.default_rng(0))
    solver = AlternatingSolver(AlternatingConfig(), matrix, tables, start_replicas(1, None))
    found = []
    monkeypatch.setattr("trainer.training.als._Side.solve", lambda _: (found.append(is_reduced()), np.zeros(2))[1])
    solver.sweep()
    assert found == [False, False]
