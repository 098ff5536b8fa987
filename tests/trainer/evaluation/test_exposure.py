import numpy as np
import pytest

from trainer.evaluation.exposure import coverage, exposure_values, gini, novelty


def test_coverage_is_the_share_of_items_in_any_list():
    assert coverage(np.array([3, 0, 1, 0])) == pytest.approx(2 / 4)


def test_gini_is_0_for_equal_shares_and_grows_with_inequality():
    assert gini(np.array([5, 5, 5])) == pytest.approx(0)
    # one of four items has all: 1 - 1/4
    assert gini(np.array([0, 8, 0, 0])) == pytest.approx(3 / 4)
    # ascending 1, 1, 2 with weights -2, 0, 2: (-2 + 4) / (3 × 4)
    assert gini(np.array([2, 1, 1])) == pytest.approx(2 / 12)
    assert gini(np.zeros(3)) == 0


def test_novelty_is_the_mean_information_of_the_training_shares():
    counts = np.array([4, 2, 2, 0])  # shares 1/2, 1/4, 1/4 and, as if it had one event, 1/8: 1, 2, 2, 3 bits
    assert novelty(np.array([3, 0, 0, 1]), counts) == pytest.approx((3 * 1 + 3) / 4)
    assert novelty(np.array([0, 5, 5, 0]), counts) == pytest.approx(2)


def test_figures_are_named_by_metric_and_list_length():
    values = exposure_values({1: np.array([1, 0]), 2: np.array([1, 1])}, np.array([1, 1]))
    assert set(values) == {f"{name}@{k}" for name in ("coverage", "gini", "novelty") for k in (1, 2)}
    assert (values["coverage@1"], values["coverage@2"]) == (0.5, 1.0)
