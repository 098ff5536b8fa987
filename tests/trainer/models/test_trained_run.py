from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from common.settings import apply_settings
from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer.config.presets import PRESETS
from trainer.data.dataset import Dataset
from trainer.models.build import build_inference_model
from trainer.models.interface import InferenceModel, Queries
from trainer.models.trained_run import load_inference_model
from trainer.runs import checkpoint
from trainer.runs.record import read_record
from trainer.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(str(tmp_path_factory.mktemp("dataset")), **checkerboard(num_visitors=20, num_items=20))


@pytest.fixture(scope="module", params=list(PRESETS))
def workdir(request: pytest.FixtureRequest, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("run"))
    settings = ["input.batch_size=16", "epochs=4", "optimizer.learning_rate=0.5", "max_loss_growth=none"]
    settings += ["model.dim=4"] if PRESETS[request.param].solver != "count" else []
    train(apply_settings(PRESETS[request.param], settings), data=dataset.root, workdir=folder)
    return folder


def load(workdir: str, dataset: Dataset) -> InferenceModel:
    return load_inference_model(workdir, read_record(workdir), checkpoint.choose_step(workdir), dataset)


def scores(model: InferenceModel, dataset: Dataset) -> np.ndarray:
    visitor = tf.range(dataset.num_visitors + 5, dtype=tf.int64)
    found: np.ndarray = model.catalogue_scores(
        Queries.of_items(visitor, tf.zeros([visitor.shape[0], 0], tf.int64), tf.zeros_like(visitor))
    ).numpy()
    return found


def test_the_best_checkpoint_ranks(workdir: str, dataset: Dataset) -> None:
    model = load(workdir, dataset)
    best = checkpoint.best_step(workdir)
    assert best is not None
    same = build_inference_model(read_record(workdir).config, dataset)
    same.fill(checkpoint.read_weights_of_step(workdir, best))
    np.testing.assert_array_equal(scores(model, dataset), scores(same, dataset))
    some = [3, 17, dataset.num_visitors + 2]  # the last one is not in the vocabulary
    same.fill(replace(checkpoint.read_weights_of_step(workdir, best), visitors=np.array(some)))
    np.testing.assert_array_equal(scores(model, dataset)[some], scores(same, dataset)[some])


def test_every_visitor_known_or_not_has_finite_scores_for_every_item(workdir: str, dataset: Dataset) -> None:
    found = scores(load(workdir, dataset), dataset)
    assert found.shape == (dataset.num_visitors + 5, dataset.num_items)
    assert np.isfinite(found).all()


def test_a_saved_model_scores_like_the_original(workdir: str, dataset: Dataset, tmp_path: Path) -> None:
    model = load(workdir, dataset)
    pair = tf.TensorSpec([None], tf.int64)
    tf.saved_model.save(model, str(tmp_path), signatures=tf.function(model.pair_scores, input_signature=[pair, pair]))
    loaded = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    visitor, item = tf.constant([0, 3, 99], tf.int64), tf.constant([1, 99, 2], tf.int64)
    (found,) = loaded(visitor=visitor, item=item).values()
    # the outer function may change the order in which TensorFlow sums
    np.testing.assert_allclose(found, model.pair_scores(visitor, item), rtol=1e-6)


def test_a_run_on_another_dataset_is_refused(workdir: str, tmp_path: Path) -> None:
    other = build_dataset(str(tmp_path / "other"), **checkerboard(num_visitors=20, num_items=20, seed=5))
    with pytest.raises(
        ValueError, match=r"was trained on the dataset .*, but .* has the checksum .*; give the original"
    ):
        load(workdir, other)


def test_a_folder_without_a_run_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no run \(no run.json\)"):
        read_record(str(tmp_path))
