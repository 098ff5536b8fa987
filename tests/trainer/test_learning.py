"""The presets learn a checkerboard."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.dataset_builder import Event, build_dataset, checkerboard
from tests.trainer.tiny_runs import checkerboard_dataset, make_config, run, same_parity_share
from trainer.data.dataset import Dataset
from trainer.models.interface import Queries
from trainer.models.trained_run import open_trained_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


def test_the_factorization_learns_the_checkerboard_also_for_new_visitors(dataset: Dataset, tmp_path: Path) -> None:
    run(make_config("mf", "epochs=15"), dataset, tmp_path)
    assert same_parity_share(dataset, tmp_path, num_new=6) > 0.95


def test_the_towers_learn_the_checkerboard_also_for_new_visitors(dataset: Dataset, tmp_path: Path) -> None:
    run(make_config("nn", "epochs=15", "model.return_bonus=0"), dataset, tmp_path)
    assert same_parity_share(dataset, tmp_path, num_new=6) > 0.95


def test_an_item_without_events_is_recommended_by_its_features(tmp_path: Path) -> None:
    arguments = checkerboard()
    cold = ["i18", "i19"]
    for split in ("train", "validation", "test"):
        arguments[split] = [event for event in arguments[split] if event.item not in cold]
    categories = {item: ["even" if index % 2 == 0 else "odd"] for index, item in enumerate(arguments["items"])}
    dataset = build_dataset(str(tmp_path / "dataset"), **arguments, categories=categories)
    assert dataset.num_trained_items == 18
    run(make_config("nn", "epochs=15", "model.return_bonus=0"), dataset, tmp_path / "run")
    model = open_trained_run(str(tmp_path / "run"), dataset.root).model
    history = tf.constant([[0, 2], [1, 3]], tf.int64)
    scores = model.catalogue_scores(
        Queries.of_items(tf.constant([60, 61], tf.int64), history, tf.constant([2, 2], tf.int64))
    ).numpy()
    # item 18 is above all odd items for a visitor of even items, item 19 above all even items for a visitor of odd ones
    assert scores[0, 18] > scores[0, 1::2].max()
    assert scores[1, 19] > scores[1, 0:18:2].max()
    similar = np.argsort(-model.item_similarities(tf.constant([18])).numpy()[0])
    assert set(similar[:4] % 2) == {0}, "the items similar to an item without events have its category"


@pytest.mark.parametrize("preset", ["notebook-mf", "notebook-nn"])
def test_the_notebook_models_learn_a_checkerboard_of_event_weights(preset: str, tmp_path: Path) -> None:
    """Visitors buy items of their own parity and view the others. A model with a squared error learns from both."""
    rows = [
        Event(f"v{visitor}", f"i{item}", "transaction" if visitor % 2 == item % 2 else "view", item)
        for visitor in range(20)
        for item in range(10)
    ]
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=rows,
        visitors=[f"v{visitor}" for visitor in range(20)],
        items=[f"i{item}" for item in range(10)],
    )
    run(make_config(preset, "epochs=40", "optimizer.learning_rate=0.02"), dataset, tmp_path / "run")
    assert same_parity_share(dataset, tmp_path / "run") > 0.95


@pytest.mark.parametrize(
    "settings",
    [
        ("model.history_length=0", "model.similarity=dot", "loss.l2=1e-4", "model.scale=1"),
        (
            "model.is_scale_learnt=true",
            "loss.half_life_days=30",
            "loss.in_batch_negatives=false",
            "loss.uniform_share=0.5",
        ),
    ],
    ids=" ".join,
)
def test_every_option_of_the_factorization_learns_the_checkerboard(
    settings: tuple[str, ...], dataset: Dataset, tmp_path: Path
) -> None:
    run(make_config("mf", "epochs=15", *settings), dataset, tmp_path)
    assert same_parity_share(dataset, tmp_path) > 0.95
