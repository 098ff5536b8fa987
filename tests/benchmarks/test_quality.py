"""Tests the figures of a dataset, the printed tables, and that both ALS implementations have the same objective."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import quality
from benchmarks.peers.families import FAMILIES
from benchmarks.quality import _format_figures, dataset_figures, target_table
from benchmarks.quality_als import equal_settings
from benchmarks.quality_data import QualityData, Run
from benchmarks.quality_runs import target
from common.settings import apply_settings
from tests.trainer.tiny_runs import checkerboard_dataset
from trainer.config.presets import PRESETS
from trainer.data.baskets import training_baskets
from trainer.evaluation.baselines import item_walk
from trainer.models.least_squares import row_l2, solve_rows

PEER = {"factors": 2, "alpha": 4.0, "regularization": 0.5, "iterations": 3, "folds_in": False}
ITEMS = np.array([[1.0, 0.5], [-0.5, 1.0], [0.25, 2.0], [1.5, -1.0]])


def solved_by_ours():
    """Solves the vector of a visitor with items 0 and 2, with the settings of `equal_settings`.

    The solution is computed in a rotated basis and rotated back.
    """
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


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Returns a function that measures a small dataset with two families, and with a walk as the trained run."""
    dataset = checkerboard_dataset(str(tmp_path / "dataset"))
    few = {name: FAMILIES[name] for name in ("popular", "item_walk")}
    monkeypatch.setattr(quality, "FAMILIES", few)
    walk = item_walk(dataset, training_baskets(dataset), None)
    monkeypatch.setattr(quality, "train", lambda *_, **__: {"scorer": walk, "seconds": 1.5})
    monkeypatch.setattr(quality, "time_evaluation", lambda *_: 2.5)
    plan = QualityData(lambda *_: tmp_path / "dataset", ("next_item",), (Run("walk"),), timed_evaluation="walk")
    return lambda: dataset_figures("buyers", plan, tmp_path, tmp_path)


@pytest.mark.slow
def test_peers_runs_and_baselines_are_measured_on_a_dataset_once(measured, monkeypatch):
    figures = measured()
    assert (figures["seconds"], figures["evaluation_seconds"]) == ({"walk": 1.5}, 2.5)
    ours = ["walk", "walk by ids", *(f"baseline {name}" for name in ("popular", "trending"))]
    peers = ["popular", "item_walk", "item_walk with trend"]
    found = figures["tasks"]["next"]
    assert set(found["ranking"]) >= {*ours, *peers}
    assert found["best_peers"]["ndcg@20"]["neighbour"] == "item_walk"
    # the visitors of a checkerboard choose items of one colour
    assert found["ranking"]["walk"]["ndcg@20"]["value"] > found["ranking"]["popular"]["ndcg@20"]["value"]
    assert figures["tuned"]["item_walk"]["next"]["settings"] in [
        trial["settings"] for trial in figures["grids"]["item_walk"]["next"]["grid"]
    ]
    monkeypatch.setattr(quality, "ranked_blocks", _tuning_blocks_only(quality.ranked_blocks))
    assert measured() == figures


def _tuning_blocks_only(ranked_blocks):
    """Returns a function that builds blocks. They fail the test if a peer's scores are loaded into them."""

    def make(*given):
        blocks = ranked_blocks(*given)
        for block in blocks:
            block.load = pytest.fail
        return blocks

    return make
