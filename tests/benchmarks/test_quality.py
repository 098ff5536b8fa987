"""The printed tables, and the equal objective of both ALS implementations."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.quality import _format_figures, target_table
from benchmarks.quality_als import equal_settings
from benchmarks.quality_runs import target
from common.settings import apply_settings
from trainer.config.presets import PRESETS
from trainer.models.least_squares import row_l2, solve_rows

PEER = {"factors": 2, "alpha": 4.0, "regularization": 0.5, "iterations": 3, "folds_in": False}
ITEMS = np.array([[1.0, 0.5], [-0.5, 1.0], [0.25, 2.0], [1.5, -1.0]])


def solved_by_ours():
    """Solves a visitor of items 0 and 2 with `equal_settings`, in a rotated basis and back."""
    config = apply_settings(PRESETS["mf"], equal_settings(PEER))
    values, basis = np.linalg.eigh(ITEMS.T @ ITEMS)
    touched = tf.constant((ITEMS @ basis)[None, [0, 2]], tf.float32)
    weights = tf.fill([1, 2], config.loss.event_weights[0])
    unobserved = config.als.unobserved_weight
    l2 = row_l2(
        tf.constant([2]), len(ITEMS), l2=config.als.l2, l2_power=config.als.l2_power, unobserved_weight=unobserved
    )
    gramian = tf.constant(values, tf.float32)
    solved, _ = solve_rows(touched, weights, gramian, l2, unobserved_weight=unobserved, is_long=False)
    return basis @ solved.numpy()[0]


def test_equal_settings_have_the_objective_of_implicit():
    # Hu et al. (2008): (Yᵀ C Y + λ) x = Yᵀ C p, with confidence alpha for touched items and 1 elsewhere
    confidence = np.diag([4.0, 1.0, 4.0, 1.0])
    chosen = np.array([1.0, 0.0, 1.0, 0.0])
    expected = np.linalg.solve(ITEMS.T @ confidence @ ITEMS + 0.5 * np.eye(2), ITEMS.T @ confidence @ chosen)
    np.testing.assert_allclose(solved_by_ours(), expected, rtol=1e-5)


def test_implicit_solves_a_visitor_the_same_way():
    pytest.importorskip("implicit", reason="implicit is not here: make setup")
    import scipy.sparse as sp
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=2, alpha=4.0, regularization=0.5, use_gpu=False)
    model.item_factors = ITEMS.astype(np.float32)
    touched = sp.csr_matrix(np.array([[1, 0, 1, 0]], np.float32))
    np.testing.assert_allclose(model.recalculate_user(0, touched), solved_by_ours(), rtol=1e-4)


def test_the_solver_runs_as_many_sweeps_as_the_peer():
    config = apply_settings(PRESETS["mf"], equal_settings(PEER))
    assert (config.solver, config.epochs, config.patience, config.model.dim) == ("als", 3, None, 2)


def test_every_trial_is_printed_with_its_metric_and_seconds():
    grid = [
        {"settings": {"K": 20}, "validation": 0.1179, "seconds": 1.25},
        {"settings": {"K": 50}, "validation": 0.1232, "seconds": 1.75},
    ]
    trend_grid = [{"settings": {"beta": 0.5}, "validation": 0.125, "seconds": 0.5}]
    grids = {"tfidf_knn": {"new": {"grid": grid, "trend_grid": trend_grid}}}
    lines = _format_figures("matrix", {"grids": grids, "seconds": {"mf": 12.4}}).splitlines()
    assert lines == [
        "## matrix",
        "",
        "| tfidf_knn, new | validation NDCG@20 | seconds |",
        "| -------------- | ------------------ | ------- |",
        "| K 20           | 0.1179             | 1.2     |",
        "| K 50           | **0.1232**         | 1.8     |",
        "| beta 0.5       | **0.1250**         | 0.5     |",
        "",
        "| trained | seconds |",
        "| ------- | ------- |",
        "| mf      | 12      |",
    ]


def test_the_table_of_targets_marks_the_missed_ones():
    table = target_table([target("quality", 1.12, 1.0588, "als"), target("time", 2, 1.5, "", is_least=False)])
    assert [line.split("|")[2:-1] for line in table.splitlines()[2:]] == [
        [" ≥ 1.12 ", " 1.059   ", " als           ", " NO  "],
        [" ≤ 2    ", " 1.500   ", "               ", " yes "],
    ]
