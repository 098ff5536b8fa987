"""What a model card says, from made-up records."""

import json
from dataclasses import replace

import pytest

from common.settings import apply_settings
from contract.manifest import Manifest, SplitInfo, VocabularyInfo
from contract.schema import Split, SplitMethod, Vocabulary
from trainer.config.presets import PRESETS
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
    split_method=SplitMethod.TIME,
    validation_from_ms=86_400_000,  # a day after 1970 began
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
    made = Subject(
        record=record,
        step=1_500,
        manifest=MANIFEST,
        period=("1970-01-01", "1970-01-03"),
        evaluations={},
        items=["red 'shoe'", "größe\\40"],
    )
    return replace(made, **changes)


def system(ndcg, **test):
    """A system's figures, with the interval ± 0.1."""
    return {
        "ndcg@20": {"value": ndcg, "low": ndcg - 0.1, "high": ndcg + 0.1, **test},
        "coverage@20": {"value": 0.125},
        "gini@20": {"value": 0.75},
    }


def evaluation(ranking=None, *, ratings=None, notes=()):
    cases = {"cases": 2_345, "visitors": 1_111, "unknown_item_share": 0.0625}
    return {
        "split": "test",
        "notes": list(notes),
        "protocols": {
            "returning_visitors": {
                "protocol": "the new items",
                "cases": cases,
                "primary": "seen_hidden",
                "rankings": {"seen_hidden": ranking, "seen_shown": None},
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
    """The first two cells of each line of a table, without what only lines up."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip("| "): row[1].strip("| ") for row in rows}


def test_a_card_says_what_the_model_is_and_where_it_comes_from():
    text = card()
    assert text.startswith("# Model card: matrix_factorization, preset mf\n")
    assert "Ranks the 56 items of one shop for a visitor: each item has a vector, a visitor has the sum of" in text
    assert "Cartwheel 0.1.0, commit abc123." in text
    rows = cells(section(text, "How it was trained"))
    assert rows["preset"] == "mf, unchanged"
    assert rows["model"].startswith("kind matrix_factorization, dim 128, history_length 12,")
    assert rows["checkpoint"].startswith("after step 1,500")
    assert rows["software"] == "python 3.11.7, cartwheel 0.1.0"


def test_a_card_names_the_settings_in_which_the_run_differs_from_its_preset():
    text = card("nn", "epochs=7", "model.dim=32")
    assert text.startswith("# Model card: towers, preset nn with changes\n")
    assert cells(section(text, "How it"))["preset"] == "nn, changed in model.dim: 128, now 32; epochs: 3, now 7"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_own_nearest(preset):
    assert nearest_preset(PRESETS[preset]) == (preset, [])


def test_a_card_tells_of_the_data():
    assert cells(section(card(), "Data")) == {
        "what": "value",
        "---------------------": "-" * len("validation from 1970-01-02 00:00 UTC, test from 1970-01-02 01:30 UTC"),
        "dataset": "shop/dataset, checksum 0123456789ab",
        "events from": "shop/a\\|b-*.csv",  # a bar within a cell would end it
        "period": "1970-01-01 to 1970-01-03",
        "cuts": "validation from 1970-01-02 00:00 UTC, test from 1970-01-02 01:30 UTC",
        "train rows": "2,000 of 1,234 visitors",
        "validation rows": "40 of 11 visitors",
        "test rows": "30 of 9 visitors",
        "training rows by kind": "1,900 view, 80 addtocart, 20 transaction",
        "vocabularies": "1,234 visitors, 56 items, 7 categories, 0 property values",
    }


def test_an_evaluated_run_has_its_figures_with_intervals_beside_the_baselines():
    ranking = {"matrix_factorization": system(0.5), "popular": system(0.125, p=0.01), "random": system(0.25, p=0.25)}
    text = card(evaluations={Split.TEST: evaluation(ranking, notes=["later events leak"])})
    results = section(text, "How well it ranks")
    assert "**later events leak**" in results
    assert "Relevant: the new items. 2,345 cases of 1,111 visitors." in results
    rows = cells(results)
    assert rows["matrix_factorization"] == "**0.5000** [0.4000, 0.6000]"
    assert rows["popular"] == "0.1250† [0.0250, 0.2250]"
    # of the baselines random is best here, but at p = .25
    assert (
        "ndcg@20 of matrix_factorization is 0.5000, above the best baseline's (random: 0.2500); the two cannot be told "
        "apart by these cases." in results
    )
    assert (
        "- Popularity (returning visitors, test): all lists of 20 together show 12.5% of the catalogue, unevenly: Gini "
        "0.750 (0: every item alike, 1: the same few to everybody). 6.2% of the rows were of items" in text
    )
    assert "Not measured" not in text


def test_a_run_that_was_not_evaluated_says_so_and_how():
    text = card()
    assert section(text, "How well it ranks").strip().startswith("**Not measured** when it was exported")
    assert "`python -m trainer evaluate --workdir RUN`" in text
    assert "Popularity (" not in text


def test_a_model_that_goes_live_says_that_nothing_was_kept_back():
    everything = replace(
        MANIFEST,
        split_method=SplitMethod.NONE,
        splits={Split.TRAIN: MANIFEST.splits[Split.TRAIN]},
        validation_from_ms=None,
        test_from_ms=None,
    )
    text = card(manifest=everything)
    assert "The dataset keeps no rows back to measure on." in text
    assert cells(section(text, "Data"))["cuts"] == "none: all events train"


def test_a_protocol_without_cases_says_so():
    text = card(evaluations={Split.TEST: evaluation()})
    assert "### Returning visitors (test)\n\nthe new items: nobody to rank for." in text


@pytest.mark.parametrize(
    ("skill", "verdict"),
    [(0.25, "explains 25.0% of what that leaves"), (-0.5, "is no better than that constant"), (None, "is no better")],
)
def test_squared_error_stands_beside_that_of_the_mean(skill, verdict):
    ratings = {"rows": 30, "mse": 0.375, "mse_of_training_mean": 0.25, "mse_of_one": 0.5, "skill": skill}
    text = card("notebook-nn", evaluations={Split.TEST: evaluation(ratings=ratings)})
    assert "It was trained to predict the weight of an event that happened, not to rank" in text
    assert f"training rows gives 0.2500: it {verdict}" in text
    assert "| model, MSE" in text


LIMITS = {
    # kind of model: what becomes of new visitors, and of items without a training event
    ("mf",): (
        "visitors from training are known by the items they touched in training",
        "rank like the least popular item",
    ),
    ("mf", "model.history_length=0"): ("were not in training get popular items", "rank like the least popular item"),
    ("mf", "solver=als"): ("computed from the latest 64 items of the history", "rank like the least popular item"),
    ("nn",): ("known by the latest 10 items", "ranked by their content in the catalogue"),
    ("notebook-mf",): ("share an out-of-vocabulary vector", "scored by untrained vectors"),
    ("notebook-nn",): ("share an out-of-vocabulary vector", "scored by untrained vectors"),
}


@pytest.mark.parametrize("arguments", LIMITS, ids=" ".join)
def test_the_limits_are_those_of_the_model(arguments):
    limits = section(card(*arguments), "Limits")
    for limit in LIMITS[arguments]:
        assert limit in limits


def test_towers_without_a_catalogue_know_nothing_of_new_items():
    bare = {name: VocabularyInfo(size=0, oov_buckets=1) for name in (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES)}
    untold = replace(MANIFEST, vocabularies={**MANIFEST.vocabularies, **bare})
    assert "rank like the least popular item" in section(card("nn", manifest=untold), "Limits")


def test_least_squares_are_told_instead_of_the_loss_they_do_not_use():
    rows = cells(section(card("mf", "solver=als"), "How it was trained"))
    assert "als" in rows
    assert not {"loss", "optimizer"} & rows.keys()


def test_the_requests_hold_the_ids_whatever_they_are():
    text = section(card(), "How to ask it")
    body = text.split("```json\n")[1].split("\n```")[0]
    assert json.loads(body)["inputs"]["history"] == [["red 'shoe'", "größe\\40"]]
    (line,) = [line for line in text.splitlines() if "history=tf.constant(" in line]
    assert eval(line.strip().removeprefix("history=tf.constant(").removesuffix("),")) == [["red 'shoe'", "größe\\40"]]
