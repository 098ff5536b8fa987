"""Tests the model cards of made-up records."""

import json
from dataclasses import replace

import pytest

from common.settings import apply_settings
from contract.manifest import Manifest, SplitInfo, VocabularyInfo
from contract.schema import DEFAULT_KINDS, Split, SplitMethod, Vocabulary
from trainer.config.presets import PRESETS
from trainer.runs.blend_record import RANKINGS, BlendRecord, BlendWeights
from trainer.runs.record import RunRecord
from trainer.serving.model_card import Subject, model_card, nearest_preset

SIZES = {
    Vocabulary.VISITORS: 1_234,
    Vocabulary.ITEMS: 56,
    Vocabulary.CATEGORIES: 7,
    Vocabulary.PROPERTY_VALUES: 0,
}
ROWS = {Split.TEST: (30, 9), Split.TRAIN: (2_000, 1_234), Split.VALIDATION: (40, 11)}
MANIFEST = Manifest(
    event_kinds=DEFAULT_KINDS,
    event_weights=None,
    split_method=SplitMethod.TIME,
    validation_from_ms=86_400_000,  # the second day of 1970
    test_from_ms=86_400_000 + 90 * 60_000,
    vocabularies={name: VocabularyInfo(size=size, oov_buckets=1) for name, size in SIZES.items()},
    splits={
        split: SplitInfo(rows=rows, target_rows=rows, visitors=visitors, blocks=1, files=())
        for split, (rows, visitors) in ROWS.items()
    },
    config={"events": "shop/a|b-*.csv"},
    files={},
)


def subject(preset="mf", *settings, **changes):
    record = RunRecord(
        config=apply_settings(PRESETS[preset], settings),
        data="shop/dataset",
        dataset_checksum="0123456789abcdef" * 4,
        training_rows=2_000,
        events={"view": 1_900, "addtocart": 80, "transaction": 20},
        mean_event_weight=1.0,
        commit="abc123",
        versions={"python": "3.11.7", "cartwheel": "0.1.0"},
    )
    default = Subject(
        record=record,
        step=1_500,
        manifest=MANIFEST,
        period=("1970-01-01", "1970-01-03"),
        evaluations={},
        items=["red 'shoe'", "größe\\40"],
    )
    return replace(default, **changes)


def system(ndcg, **test):
    """Builds the estimates of a system, with intervals of ± 0.1."""
    return {
        "ndcg@20": {"value": ndcg, "low": ndcg - 0.1, "high": ndcg + 0.1, **test},
        "coverage@20": {"value": 0.125},
        "gini@20": {"value": 0.75},
    }


def evaluation(ranking=None, *, ratings=None, notes=(), available=None):
    cases = {"cases": 2_345, "visitors": 1_111, "unknown_item_share": 0.0625}
    cases |= {"catalogue_items": 56, "available_items": 40}
    return {
        "split": "test",
        "notes": list(notes),
        "protocols": {
            "returning_visitors": {
                "protocol": "the new items",
                "cases": cases,
                "primary": "seen_hidden",
                "rankings": {"seen_hidden": ranking, "seen_shown": None, "available_only": available},
            }
        },
        "ratings": ratings,
    }


def card(*arguments, **changes):
    return model_card(subject(*arguments, **changes))


def section(text, title):
    (found,) = [part for part in text.split("\n## ") if part.startswith(title)]
    return found.removeprefix(title)


def cells(text):
    """Returns the first two cells of each table row, without padding."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip("| "): row[1].strip("| ") for row in rows}


def test_a_card_describes_the_model_and_its_training():
    text = card()
    assert text.startswith("# Model card: mf\n")
    assert (
        "Ranks the 56 items of one shop for a visitor: a visitor's vector is the sum of the vectors of their items"
        in text
    )
    assert "Cartwheel 0.1.0, commit abc123." in text
    rows = cells(section(text, "Training"))
    assert rows["preset"] == "mf, unchanged"
    assert rows["model"].startswith("kind matrix_factorization, dim 128, history_length 12,")
    assert rows["checkpoint"].startswith("step 1,500:")
    assert rows["software"] == "python 3.11.7, cartwheel 0.1.0"


def test_the_card_of_auto_describes_each_model_of_the_blend():
    own = subject("walk", "seed=3")
    trials = {"walk": own.record, "nn": replace(own.record, config=replace(PRESETS["nn"], name="nn"))}
    even = BlendWeights(parts=(0.5, 0.5), half_life_days=7.0)
    blend = BlendRecord(
        parts=("parts/walk", "parts/nn"), steps=(2, 640), weights=dict.fromkeys(RANKINGS, even), validation={}
    )
    record = replace(own.record, config=replace(own.record.config, name="auto"))
    text = model_card(replace(own, record=record, trials=trials, blend=blend))
    assert text.startswith("# Model card: auto\n")
    assert "Ranks the 56 items of one shop for a visitor: a blend of walk, nn. Inputs" in text
    shared, walk, towers = section(text, "Training").split("\n### ")
    assert (cells(shared)["preset"], cells(shared)["seed"]) == ("auto", "3")
    assert walk.startswith("walk\n\nAn item's score is the weighted number of visitors")
    assert cells(walk)["checkpoint"].startswith("step 2:")
    assert towers.startswith("nn\n\n")
    assert cells(towers)["checkpoint"].startswith("step 640:")
    assert cells(towers)["model"].startswith("kind towers,")
    limits = section(text, "Limitations")
    assert "- `walk`: The model knows a visitor only by the items of the history" in limits
    assert "- `nn`: " in limits


def test_a_card_lists_the_changes_to_the_preset():
    text = card("nn", "epochs=7", "model.dim=32")
    assert text.startswith("# Model card: nn (preset nn with changes)\n")
    assert cells(section(text, "Training"))["preset"] == "nn, changed: model.dim: 128, now 32; epochs: 3, now 7"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_nearest_preset_of_a_preset_is_itself(preset):
    assert nearest_preset(PRESETS[preset]) == (preset, [])
    assert nearest_preset(replace(PRESETS[preset], name="auto")) == (preset, [])


def test_a_card_describes_the_data():
    assert cells(section(card(), "Data")) == {
        "property": "value",
        "----------------": "-" * len("validation from 1970-01-02 00:00 UTC, test from 1970-01-02 01:30 UTC"),
        "dataset": "shop/dataset, checksum 0123456789ab",
        "event log": "shop/a\\|b-*.csv",  # an unescaped bar would end the cell
        "period": "1970-01-01 to 1970-01-03",
        "split": "validation from 1970-01-02 00:00 UTC, test from 1970-01-02 01:30 UTC",
        "train split": "2,000 rows of 1,234 visitors",
        "validation split": "40 rows of 11 visitors",
        "test split": "30 rows of 9 visitors",
        "training events": "1,900 view, 80 addtocart, 20 transaction",
        "vocabularies": "1,234 visitors, 56 items, 7 categories, 0 property values",
    }


def test_the_card_of_an_evaluated_run_has_intervals_and_baselines():
    ranking = {"mf": system(0.5), "popular": system(0.125, p=0.01), "random": system(0.25, p=0.25)}
    text = card(evaluations={Split.TEST: evaluation(ranking, notes=["later events leak"])})
    results = section(text, "Evaluation")
    assert "**later events leak**" in results
    assert "Relevant items: the new items. 2,345 cases of 1,111 visitors." in results
    rows = cells(results)
    assert rows["mf"] == "**0.5000** [0.4000, 0.6000]"
    assert rows["popular"] == "0.1250† [0.0250, 0.2250]"
    # random is the best baseline, with p = 0.25
    assert (
        "The NDCG@20 of mf is 0.5000, above that of the best baseline (random: 0.2500); the difference is not "
        "significant." in results
    )
    assert (
        "- Popularity bias (returning visitors, test): the lists of 20 contain 12.5% of the catalogue, with a Gini "
        "coefficient of 0.750 (0: all items equally often, 1: a few items only). 6.2% of the rows have an item" in text
    )
    assert "Not evaluated" not in text


def test_a_card_has_the_result_with_only_available_items():
    ranking, available = (
        {"mf": system(value), "popular": system(0.125, p=0.01), "random": system(0.25, p=0.25)}
        for value in (0.5, 0.375)
    )
    line = (
        "With only available items as candidates (40 of 56 items; unavailable relevant items count as misses): "
        "NDCG@20 is 0.375 for mf and 0.250 for random, the best baseline.\n"
    )
    assert line in card(evaluations={Split.TEST: evaluation(ranking, available=available)})
    assert "With only available" not in card(evaluations={Split.TEST: evaluation(ranking)})


def test_the_card_of_a_run_without_evaluation_says_how_to_evaluate_it():
    text = card()
    assert section(text, "Evaluation").strip().startswith("**Not evaluated** before the export.")
    assert "`cartwheel evaluate --workdir RUN`" in text
    assert "Popularity bias" not in text


def test_a_card_says_that_a_dataset_without_splits_cannot_be_evaluated():
    everything = replace(
        MANIFEST,
        split_method=SplitMethod.NONE,
        splits={Split.TRAIN: MANIFEST.splits[Split.TRAIN]},
        validation_from_ms=None,
        test_from_ms=None,
    )
    text = card(manifest=everything)
    assert "The dataset has no validation or test split." in text
    assert cells(section(text, "Data"))["split"] == "none: all rows are for training"


def test_a_protocol_without_cases_says_that_there_are_no_visitors():
    text = card(evaluations={Split.TEST: evaluation()})
    assert "### Returning visitors (test)\n\nNo cases." in text


@pytest.mark.parametrize(
    ("skill", "verdict"),
    [(0.25, "25.0% less than"), (-0.5, "no less than"), (None, "no less than")],
)
def test_squared_error_is_compared_with_that_of_the_mean(skill, verdict):
    ratings = {"rows": 30, "mse": 0.375, "mse_of_training_mean": 0.25, "mse_of_one": 0.5, "skill": skill}
    text = card("notebook-nn", evaluations={Split.TEST: evaluation(ratings=ratings)})
    assert "The model was trained to predict the weights of observed events, not to rank" in text
    assert f"0.3750, {verdict} that of a constant, the mean of the training rows (0.2500)" in text
    assert "| model, MSE" in text


LIMITS = {
    # by preset and settings: the treatment of new visitors, and of items without training events
    ("mf",): (
        "it uses the items of visitors from training",
        "rank like the least popular item",
    ),
    ("mf", "model.history_length=0"): ("were not in training get popular items", "rank like the least popular item"),
    ("mf", "solver=als"): ("computed from the latest 64 items of the history", "rank like the least popular item"),
    ("nn",): ("knows a visitor only by the latest 10 items", "ranked by their content in the catalogue"),
    ("walk",): ("only by the items of the history in the request", "rank like the least popular item"),
    ("session_knn",): ("only by the items of the history in the request", "rank like the least popular item"),
    ("ease",): (
        "only by the items of the history in the request",
        "most frequent items",
        "like the least popular item",
    ),
    ("notebook-mf",): ("share an out-of-vocabulary vector", "scored by untrained vectors"),
    ("notebook-nn",): ("share an out-of-vocabulary vector", "scored by untrained vectors"),
}


@pytest.mark.parametrize("arguments", LIMITS, ids=" ".join)
def test_the_limitations_are_those_of_the_model(arguments):
    limits = section(card(*arguments, step=1), "Limitations")
    for limit in LIMITS[arguments]:
        assert limit in limits


def test_towers_without_a_catalogue_rank_new_items_last():
    bare = {name: VocabularyInfo(size=0, oov_buckets=1) for name in (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES)}
    without_content = replace(MANIFEST, vocabularies={**MANIFEST.vocabularies, **bare})
    assert "rank like the least popular item" in section(card("nn", manifest=without_content), "Limitations")


def test_a_card_lists_als_settings_instead_of_an_unused_loss():
    rows = cells(section(card("mf", "solver=als"), "Training"))
    assert "als" in rows
    assert not {"loss", "optimizer"} & rows.keys()
    assert not {"als", "loss", "optimizer"} & cells(section(card("walk", step=2), "Training")).keys()


def test_the_card_of_a_walk_names_the_chosen_powers():
    rows = cells(section(card("walk", step=2), "Training"))
    assert rows["powers"] == "item_power 0.35, neighbour_power 0.15, visitor_power 0.5, recency_power 0"


def test_the_card_of_a_session_knn_names_the_chosen_powers():
    rows = cells(section(card("session_knn", step=3), "Training"))
    assert rows["powers"] == "item_power 0.5, length_power 0.5, recency_power 1"


def test_the_usage_examples_escape_any_id():
    text = section(card(), "Usage")
    body = text.split("```json\n")[1].split("\n```")[0]
    assert json.loads(body)["inputs"]["history"] == [["red 'shoe'", "größe\\40"]]
    (line,) = [line for line in text.splitlines() if "history=tf.constant(" in line]
    assert eval(line.strip().removeprefix("history=tf.constant(").removesuffix("),")) == [["red 'shoe'", "größe\\40"]]


def test_the_card_of_a_refit_has_the_evaluation_of_its_run():
    refit_of = {"run": "runs/mf", "step": 1_200, "epochs": 4, "validation_metric": "ndcg@20", "best_validation": 0.25}
    refit_of |= {"evaluations": {}}
    card = model_card(subject(record=replace(subject().record, refit_of=refit_of)))
    assert "| runs/mf: the same settings, trained on all events, to the best epoch of runs/mf (4) " in card
    assert "| step 1,500: the last, because a refit has no validation " in card
    assert "**Not evaluated.** This model is a refit of runs/mf" in card
    assert "That run reached NDCG@20 0.2500 in its validation." in card
    test = {"protocol": "next_item", "metric": "ndcg@20", "value": 0.5, "low": 0.4, "high": 0.6}
    refit_of["evaluations"] = {"test": test}
    card = model_card(
        subject(
            record=replace(subject().record, refit_of=refit_of),
            evaluations={Split.TEST: evaluation({"mf": system(0.5), "popular": system(0.1, p=0.001)})},
        )
    )
    assert "That run reached NDCG@20 0.5000 on its test split (next item).**" in card
    assert "### Returning visitors (test)" in card
