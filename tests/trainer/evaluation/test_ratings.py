import math

import numpy as np
import pytest
import tensorflow as tf

from contract.schema import Split
from tests.trainer.dataset_builder import build_dataset
from trainer.evaluation.ratings import rating_errors

WEIGHTS = (1.0, 2.0, 3.0)


class PairTable(tf.Module):
    """Predicts the entry of a table [visitor, item]."""

    def __init__(self, table):
        super().__init__()
        self.table = tf.constant(table, tf.float32)

    def pair_scores(self, visitor, item):
        return tf.gather_nd(self.table, tf.stack([visitor, item], axis=1))


@pytest.fixture
def dataset(tmp_path):
    return build_dataset(
        str(tmp_path / "dataset"),
        # weights 1, 1, 1, 3: mean 1.5
        train=[("anna", "a"), ("anna", "b"), ("bob", "a"), ("bob", "b", "transaction")],
        # weights 1 and 2; anna's earlier rows are context and are not measured
        test=[("anna", "a", "view", 10), ("bob", "b", "addtocart", 11)],
        visitors=["anna", "bob"],
        items=["a", "b"],
    )


def test_errors_of_the_model_and_of_constants_are_over_the_target_rows(dataset):
    errors = rating_errors(PairTable([[1.5, 9], [9, 2.25]]), dataset, Split.TEST, WEIGHTS)
    assert errors.rows == 2
    # ((1.5 - 1)² + (2.25 - 2)²) / 2
    assert errors.mse == pytest.approx(0.15625)
    # ((1.5 - 1)² + (1.5 - 2)²) / 2
    assert errors.mse_of_training_mean == pytest.approx(0.25)
    # (0² + 1²) / 2
    assert errors.mse_of_one == pytest.approx(0.5)
    assert errors.skill == pytest.approx(1 - 0.15625 / 0.25)


def test_many_rows_are_scored_in_chunks(dataset, monkeypatch):
    whole = rating_errors(PairTable([[1.5, 9], [9, 2.25]]), dataset, Split.TRAIN, WEIGHTS)
    monkeypatch.setattr("trainer.evaluation.ratings._CHUNK_ROWS", 3)
    assert rating_errors(PairTable([[1.5, 9], [9, 2.25]]), dataset, Split.TRAIN, WEIGHTS) == whole


def test_the_skill_is_null_if_all_weights_are_equal(dataset):
    errors = rating_errors(PairTable(np.ones((2, 2))), dataset, Split.TEST, (1.0, 1.0, 1.0))
    assert math.isnan(errors.skill)
    assert errors.to_json()["skill"] is None


def test_a_diverged_model_raises(dataset):
    with pytest.raises(ValueError, match="not finite"):
        rating_errors(PairTable([[np.nan, 0], [0, 0]]), dataset, Split.TEST, WEIGHTS)


def test_the_weight_of_a_row_such_as_a_rating_is_the_target(tmp_path):
    """Two of three test ratings are 4, one is 1; the mean of the training ratings is 3."""
    dataset = build_dataset(
        str(tmp_path / "shop"),
        train=[("anna", "a", "order", 1, 2.0), ("bob", "a", "order", 2, 4.0)],
        test=[("anna", "b", "order", 3, 4.0), ("bob", "b", "order", 4, 4.0), ("anna", "a", "order", 5, 1.0)],
        visitors=["anna", "bob"],
        items=["a", "b"],
        kinds=["order"],
    )
    errors = rating_errors(PairTable(np.full((2, 2), 3.0)), dataset, Split.TEST, (1.0,))
    assert (errors.rows, errors.mse) == (3, pytest.approx((1 + 1 + 4) / 3))
    assert errors.mse_of_training_mean == errors.mse
    assert errors.mse_of_one == pytest.approx((9 + 9 + 0) / 3)
