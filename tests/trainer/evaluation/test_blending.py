"""Runs that end with a blend: several replicas, interrupted and resumed, exported as measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from common.settings import apply_settings
from contract.schema import Split
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.trainer.tiny_runs import run
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.offer import read_item_facts
from trainer.evaluate import evaluate
from trainer.export import export
from trainer.models.blend import BlendInference
from trainer.models.interface import Queries
from trainer.models.trained_run import open_trained_run
from trainer.runs.blend_record import read_blend
from trainer.runs.record import read_record
from trainer.serving.refresh import refresh
from trainer.workflows.refit import refit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(str(tmp_path_factory.mktemp("dataset")), **checkerboard())


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("run")
    run(config_of(), dataset, workdir)
    return workdir


def config_of(*settings: str) -> RunConfig:
    small = ["input.batch_size=64", "input.window_blocks=4", "epochs=2", "patience=none", "model.dim=8"]
    return apply_settings(PRESETS["mf"], [*small, *settings])


def blend_of(workdir: Path) -> dict:
    return json.loads((workdir / "blend.json").read_text())


def test_a_run_trains_its_companion_and_weighs_both(finished: Path, dataset: Dataset) -> None:
    blend = read_blend(str(finished))
    assert blend is not None
    assert set(blend.parts) <= {".", "parts/walk"}
    figures = blend.validation["seen_hidden"]
    assert list(figures["parts"]) == [".", "parts/walk"]
    assert figures["blend"] >= max(figures["parts"].values())
    opened = open_trained_run(str(finished))
    assert isinstance(opened.model, BlendInference)
    assert opened.record.config.name == "mf"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_replicas_weigh_alike(finished: Path, dataset: Dataset, tmp_path: Path, devices: int) -> None:
    run(config_of(f"devices={devices}"), dataset, tmp_path)
    one, other = blend_of(finished), blend_of(tmp_path)
    assert one["parts"] == other["parts"]
    assert one["half_life_days"] == other["half_life_days"]
    for ranking in ("seen_hidden", "seen_shown"):
        np.testing.assert_allclose(one[ranking]["parts"], other[ranking]["parts"], rtol=1e-3)
        assert one["validation"][ranking]["blend"] == pytest.approx(other["validation"][ranking]["blend"], abs=1e-3)


@pytest.mark.slow
def test_a_run_killed_before_its_blend_goes_on_with_it(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    # the model and its companion are trained, as if the process was killed while it chose the weights
    run(replace(config_of(), blend=True), dataset, tmp_path)
    (tmp_path / "blend.json").unlink()
    run(config_of(), dataset, tmp_path)
    assert blend_of(tmp_path) == blend_of(finished)


def test_a_blend_is_evaluated_at_the_moment_of_each_case_and_exported_at_the_end(
    finished: Path, dataset: Dataset, tmp_path: Path
) -> None:
    result = evaluate(workdir=str(finished), split=Split.VALIDATION)
    assert "mf" in result["protocols"]["next_item"]["rankings"]["seen_shown"]
    export(workdir=str(finished), output=str(tmp_path / "export"))
    answer = tf.saved_model.load(str(tmp_path / "export")).signatures["recommend"](
        visitor_id=tf.constant([""]),
        history=tf.constant([["i2", "i4"]]),
        k=tf.constant(5),
        exclude_seen=tf.constant(True),
    )
    model = open_trained_run(str(finished)).model
    history = tf.constant([[2, 4]], tf.int64)
    queries = Queries.of_items(tf.constant([dataset.num_visitors], tf.int64), history, tf.constant([2], tf.int64))
    scores = model.catalogue_scores(queries).numpy()[0]
    scores[[2, 4]] = -np.inf
    np.testing.assert_allclose(answer["score"][0], np.sort(scores)[::-1][:5], rtol=1e-5)


def test_a_refresh_counts_newer_events(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    export(workdir=str(finished), output=str(tmp_path / "export"))
    events = checkerboard()
    day = 24 * 60 * 60 * 1000
    newer = [("new", "i7", "view", 100 * day), ("new", "i7", "view", 101 * day)]
    later = build_dataset(
        str(tmp_path / "later"), **{**events, "train": events["train"] + newer, "validation": [], "test": []}
    )
    result = refresh(
        export=str(tmp_path / "export"),
        output=str(tmp_path / "refreshed"),
        facts=read_item_facts(later),
        newer=later,
    )
    assert result["trend_events"] == 2
    before, after = (
        tf.train.load_checkpoint(str(tmp_path / name / "variables" / "variables")) for name in ("export", "refreshed")
    )
    counts = [reader.get_tensor("_model/_counts/.ATTRIBUTES/VARIABLE_VALUE") for reader in (before, after)]
    assert counts[1][1, 7] == counts[0][1, 7] + 2
    days = read_blend(str(finished)).half_life_days
    # the earlier events are 101 days old, the newer ones one day and none
    expected = counts[0][0, 7] * 0.5 ** (101 / days) + 0.5 ** (1 / days) + 1
    assert counts[1][0, 7] == pytest.approx(expected, rel=1e-3)
    trend = after.get_tensor("_model/_trend/.ATTRIBUTES/VARIABLE_VALUE")
    np.testing.assert_allclose(trend[0], np.log((counts[1][0] + 0.05) / (counts[1][1] + 0.25)), rtol=1e-5)


def test_a_refit_refits_the_parts_and_keeps_their_weights(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    result = refit(str(finished), workdir=str(tmp_path / "refit"))
    before, after = blend_of(finished), blend_of(tmp_path / "refit")
    assert (after["parts"], after["seen_hidden"], after["seen_shown"]) == (
        before["parts"],
        before["seen_hidden"],
        before["seen_shown"],
    )
    opened = open_trained_run(str(tmp_path / "refit"))
    assert opened.dataset.item_counts.sum() > dataset.item_counts.sum()  # of all splits
    assert result["refit_of"]["run"] == str(finished)
    if "parts/walk" in after["parts"]:
        walk = read_record(str(tmp_path / "refit" / "parts" / "walk"))
        assert walk.config.num_epochs == 1  # the combination that the run chose


def test_damage_to_the_blend_is_reported(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "blend.json").write_text('{"parts": ["."]}')
    with pytest.raises(ValueError, match=r"blend.json is damaged .*; train the run again"):
        read_blend(str(tmp_path))


def test_a_model_of_event_weights_cannot_be_blended() -> None:
    with pytest.raises(ValueError, match="blend must be false for a model that predicts event weights"):
        apply_settings(PRESETS["notebook-mf"], ["blend=true"])
