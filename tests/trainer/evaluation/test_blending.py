"""Tests runs with a blend: on several replicas, interrupted and resumed, and exported as they were measured."""

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
from trainer.data.trend import latest_trends, read_item_events
from trainer.evaluate import evaluate
from trainer.export import export, export_model
from trainer.models.blend import BlendInference
from trainer.models.interface import Queries
from trainer.models.trained_run import load_part, open_trained_run
from trainer.ranking.topk import visible_scores
from trainer.runs.blend_record import RANKINGS, BlendWeights, half_lives_of, read_blend
from trainer.runs.checkpoint import choose_step
from trainer.runs.record import read_record
from trainer.serving.refresh import refresh
from trainer.workflows.refit import refit


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Visitors of a checkerboard come back after an hour, and view the same item again a minute later."""
    events = checkerboard()
    hour = 60 * 60 * 1000
    events["validation"] = [
        event._replace(timestamp_ms=event.timestamp_ms + delay_ms)
        for delay_ms in (hour, hour + 60_000)
        for event in events["validation"]
    ]
    events["test"] = [event._replace(timestamp_ms=event.timestamp_ms + 2 * hour) for event in events["test"]]
    return build_dataset(str(tmp_path_factory.mktemp("dataset")), **events)


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


def test_a_run_trains_its_companion_and_chooses_weights_for_both(finished: Path, dataset: Dataset) -> None:
    blend = read_blend(str(finished))
    assert blend is not None
    assert set(blend.parts) <= {".", "parts/walk"}
    for ranking in RANKINGS:
        figures = blend.validation[ranking]
        assert list(figures["parts"]) == [".", "parts/walk"]
        assert figures["blend"] >= max(*figures["parts"].values(), figures["frequency"] or 0)
    opened = open_trained_run(str(finished))
    assert isinstance(opened.model, BlendInference)
    assert opened.record.config.name == "mf"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_the_weights_do_not_depend_on_the_number_of_replicas(
    devices: int, finished: Path, dataset: Dataset, tmp_path: Path
) -> None:
    run(config_of(f"devices={devices}"), dataset, tmp_path)
    one, other = blend_of(finished), blend_of(tmp_path)
    assert one["parts"] == other["parts"]
    for ranking in RANKINGS:
        weights, others = one["weights"][ranking], other["weights"][ranking]
        assert weights["half_life_days"] == others["half_life_days"]
        np.testing.assert_allclose(weights["parts"], others["parts"], rtol=1e-3)
        assert one["validation"][ranking]["blend"] == pytest.approx(other["validation"][ranking]["blend"], abs=1e-3)


@pytest.mark.slow
def test_a_run_killed_before_its_blend_resumes_with_the_blend(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    # the model and its companion are trained, as if the process was killed while it chose the weights
    run(replace(config_of(), blend=True), dataset, tmp_path)
    (tmp_path / "blend.json").unlink()
    run(config_of(), dataset, tmp_path)
    assert blend_of(tmp_path) == blend_of(finished)


def test_a_blend_is_evaluated_and_exported_with_the_weights_of_each_ranking(
    finished: Path, dataset: Dataset, tmp_path: Path
) -> None:
    result = evaluate(workdir=str(finished), split=Split.VALIDATION)
    assert "mf" in result["protocols"]["next_item"]["rankings"]["seen_shown"]
    # a blend of all features and two models, with weights that differ from ranking to ranking
    weights = {
        ranking: BlendWeights(
            parts=(1.0, days / 10),
            popularity=0.5,
            trend=1.0,
            half_life_days=days,
            returns=(2.0 * days, 0.5, days - 7, 0.5),
        )
        for ranking, days in zip(RANKINGS, (30.0, 7.0, 1.0), strict=True)
    }
    weights["new_items"] = replace(weights["new_items"], returns=(0.0,) * 4)
    parts = [load_part(folder, choose_step(folder), dataset) for folder in (str(finished), f"{finished}/parts/walk")]
    assert [part.has_sums for part in parts] == [False, True]
    trends = latest_trends(read_item_events(dataset), half_lives_of(weights))
    model = BlendInference(parts, weights=weights, item_counts=dataset.item_counts, trends=trends)
    export_model(model, dataset, str(tmp_path / "export"), name="blend")
    signatures = tf.saved_model.load(str(tmp_path / "export")).signatures

    def served(signature: str, exclude_seen: list[bool], **given: tf.Tensor) -> np.ndarray:
        answer = signatures[signature](
            visitor_id=tf.constant([""] * len(exclude_seen)),
            history=tf.constant([["i2", "i4"]] * len(exclude_seen)),
            k=tf.constant([5] * len(exclude_seen)),
            exclude_seen=tf.constant(exclude_seen),
            **given,
        )
        return answer["score"].numpy()

    def measured(ages_ms: list[int] | None, *, is_seen_hidden: bool) -> np.ndarray:
        queries = Queries.of_items(
            tf.constant([dataset.num_visitors], tf.int64), tf.constant([[2, 4]], tf.int64), tf.constant([2], tf.int64)
        )
        if ages_ms is not None:
            times = -tf.constant([ages_ms], tf.int64)
            queries = queries._replace(history_event=tf.zeros_like(times), history_timestamp_ms=times)
        return np.sort(visible_scores(model, queries, is_seen_hidden).numpy()[0])[::-1][:5]

    found = {}
    for name, ages_ms in {"away": [10**8, 10**7], "here": [10**8, 1000]}.items():
        ages = {
            "history_event": tf.constant([["view"] * 2] * 2),
            "history_age_ms": tf.constant([ages_ms] * 2, tf.int64),
        }
        found[name] = served("recommend_events", [True, False], **ages)
        expected = [measured(ages_ms, is_seen_hidden=exclude_seen) for exclude_seen in (True, False)]
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)
    assert not np.allclose(found["away"][1], found["here"][1])
    # without ages, the visitor is in a session
    by_ids = served("recommend", [False])
    np.testing.assert_allclose(by_ids, [measured(None, is_seen_hidden=False)], rtol=1e-4)


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
    assert counts[1][-1, 7] == counts[0][-1, 7] + 2
    trend = after.get_tensor("_model/_trend/.ATTRIBUTES/VARIABLE_VALUE")
    blend = read_blend(str(finished))
    assert blend is not None
    half_lives_days = half_lives_of(blend.weights)
    assert len(trend) == len(half_lives_days)
    for number, days in enumerate(half_lives_days):
        # the earlier events are 101 days old but for two hours, the newer ones one day and none
        expected = counts[0][number, 7] * 0.5 ** ((101 - 2 / 24) / days) + 0.5 ** (1 / days) + 1
        assert counts[1][number, 7] == pytest.approx(expected, rel=1e-3)
        recent = counts[1][number]
        np.testing.assert_allclose(trend[number, 0], np.log((recent + 0.05) / (counts[1][-1] + 0.25)), rtol=1e-5)


def test_a_refit_refits_the_parts_and_keeps_their_weights(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    result = refit(str(finished), workdir=str(tmp_path / "refit"))
    before, after = blend_of(finished), blend_of(tmp_path / "refit")
    assert (after["parts"], after["weights"]) == (before["parts"], before["weights"])
    opened = open_trained_run(str(tmp_path / "refit"))
    assert opened.dataset.item_counts.sum() > dataset.item_counts.sum()  # of all splits
    assert result["refit_of"]["run"] == str(finished)
    if "parts/walk" in after["parts"]:
        walk = read_record(str(tmp_path / "refit" / "parts" / "walk"))
        assert walk.config.num_epochs == 1  # the combination that the run chose


def test_damage_to_the_blend_is_reported(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "blend.json").write_text('{"parts": ["."]}')
    with pytest.raises(ValueError, match=r"blend.json is damaged .*; remove it and run `train` again"):
        read_blend(str(tmp_path))
    values = json.loads((finished / "blend.json").read_text())
    values["weights"]["returning"]["returns"] = [0.0, 1.0, 0.5]
    (tmp_path / "blend.json").write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=r"blend.json is damaged .*`returns` must have one weight for each of is_seen, .*, got \("
    ):
        read_blend(str(tmp_path))


def test_a_model_of_event_weights_cannot_be_blended() -> None:
    with pytest.raises(ValueError, match="blend must be false for a model that predicts event weights"):
        apply_settings(PRESETS["notebook-mf"], ["blend=true"])
