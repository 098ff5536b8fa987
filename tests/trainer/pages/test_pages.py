"""Draws the Training and Evaluation pages from made-up files, such as those of a new, a killed and a long run."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from common.report.page import Block, Note, Page, Picture, render
from contract.schema import DEFAULT_KINDS, Split
from trainer.config.presets import PRESETS
from trainer.pages.evaluation import _draw_groups, evaluation_page
from trainer.pages.training import training_page
from trainer.runs.checkpoint import Validations
from trainer.runs.record import RunRecord

NO_VALIDATIONS = Validations(metric="", is_higher_better=False, values={})


def record(preset: str = "mf") -> RunRecord:
    return RunRecord(
        config=PRESETS[preset],
        data="shop",
        dataset_checksum="0" * 64,
        training_rows=80,
        events={"view": 80, "addtocart": 0, "transaction": 0},
        mean_event_weight=1.0,
        commit=None,
        versions={"python": "3.11"},
    )


def parts(page: Page) -> list:
    return [part for section in page.sections for part in section.parts]


def picture(page: Page, title: str) -> Picture:
    (found,) = [part for part in parts(page) if isinstance(part, Picture) and part.title == title]
    return found


def step(number: int, loss: float, time: float | None = None) -> dict:
    line = {"step": number, "epoch": 1, "loss": loss, "examples_per_second": 100.0}
    return line if time is None else line | {"time": time}


def test_the_page_of_a_new_run_says_that_it_has_no_steps():
    page = training_page("run", record(), [], [], NO_VALIDATIONS, {})
    notes = [part.text for part in parts(page) if isinstance(part, Note)]
    assert notes == [
        "The run has not completed a step yet.",
        "No run history: history.jsonl does not exist.",
    ]
    assert "<svg" in render([page], title="T", shown="training")


def test_a_warm_start_lists_the_carried_rows():
    counts = {"rows": 9, "carried": 5, "from_category": 3, "new": 1, "dropped": 2}
    warm = replace(record(), warm_start={"run": "yesterday", "step": 70, "tables": {"item": counts}})
    page = training_page("run", warm, [], [], NO_VALIDATIONS, {})
    (block,) = [part for part in parts(page) if isinstance(part, Block)]
    assert block.title == "Warm start from yesterday, step 70: rows per table"
    assert block.table.header == ["table", "rows", "carried", "from category", "new", "dropped"]
    assert block.table.rows == [["item", 9, 5, 3, 1, 2]]


def test_a_start_without_an_earlier_end_implies_a_kill():
    events = [("started", 0, 10), ("checkpoint", 2, 12), ("resumed", 2, 30), ("preempted", 3, 31), ("resumed", 3, 40)]
    history = [{"event": event, "step": number, "time": float(time)} for event, number, time in events]
    page = training_page("run", record(), [step(1, 2.0, 11.0), step(2, 1.0)], history, NO_VALIDATIONS, {})
    summary = picture(page, "Run history").summary
    assert summary == (
        "1 × started, 1 × checkpoint, 1 × killed, 2 × resumed, 1 × preempted; 30 s from the first event to the last."
    )


def test_the_best_validation_is_the_lowest_if_lower_is_better():
    lower = Validations(metric="mse", is_higher_better=False, values={10: 0.5, 20: 0.4, 30: 0.6})
    page = training_page("run", record(), [step(30, 1.0)], [], lower, {})
    assert picture(page, "Validation MSE").summary == "Best after step 20: 0.4000; lower is better."


@pytest.mark.parametrize(
    ("losses", "summary"),
    [
        ([3.0, 1.0, 2.0], "First 3, last 2, lowest 1."),
        ([math.nan, 3.0, 2.0, math.inf], "First 3, last 2, lowest 2. NaN or infinite in 2 of 4 log lines."),
        ([math.nan], "NaN or infinite in 1 of 1 log lines."),
    ],
)
def test_infinite_losses_are_counted_and_not_compared(losses, summary):
    page = training_page("run", record(), [step(n, loss) for n, loss in enumerate(losses)], [], NO_VALIDATIONS, {})
    assert picture(page, "Loss").summary == summary


def test_the_curves_of_a_long_run_are_averaged():
    metrics = [step(number, float(number % 2)) for number in range(1, 10_001)]
    page = training_page("run", record(), metrics, [], NO_VALIDATIONS, {"item": (10, 4)})
    # 10,000 lines, 400 points: each is the mean of 25; the table has every 25th line
    assert len(picture(page, "Loss").table.rows) == 400
    assert len(picture(page, "Loss").svg) < 30_000
    assert [line[:2] for line in picture(page, "Throughput").table.rows[:2]] == [[1, 1], [26, 1]]


def test_the_page_of_a_run_with_many_checkpoints_is_small_and_keeps_rare_events():
    kinds = ["started", *["checkpoint"] * 5_000, "resumed", *["checkpoint"] * 5_000, "preempted", "resumed", "finished"]
    history = [{"event": event, "step": number, "time": 1e9 + number} for number, event in enumerate(kinds)]
    validations = Validations(
        metric="ndcg@20", is_higher_better=True, values={n: n % 997 / 1000 for n in range(1, 10_001)}
    )
    page = training_page("run", record(), [step(1, 2.0)], history, validations, {})
    assert len(render([page], title="T", shown="training").encode()) < 500_000
    rows = [row[1] for row in picture(page, "Run history").table.rows]
    # a kill precedes the first resumption; of the 10,000 checkpoints, every 25th is kept
    assert Counter(rows) == {"started": 1, "checkpoint": 400, "killed": 1, "resumed": 2, "preempted": 1, "finished": 1}
    assert "10,000 × checkpoint, 1 × killed, 2 × resumed" in picture(page, "Run history").summary
    assert "checkpoint (10,000)" in picture(page, "Run history").svg
    # every 25th of 10,000 from the first on, and the best, step 996, which is not one of these (1 + 25 n)
    assert len(picture(page, "Validation NDCG@20").table.rows) == 401
    assert [996, 0.996] in picture(page, "Validation NDCG@20").table.rows


NO_CASES = {"primary": "seen_hidden", "rankings": {"seen_hidden": None, "seen_shown": None}}


def evaluation(**changes) -> dict:
    return {
        "dataset": "shop",
        "dataset_checksum": "0" * 64,
        "step": 1500,
        "split": "test",
        "is_leaking": False,
        "event_kinds": list(DEFAULT_KINDS),
        "notes": ["no returning visitors"],
        "intervals": {"level": 0.95, "method": "bootstrap", "resamples": 1000},
        "protocols": {"returning_visitors": {"protocol": "new items", **NO_CASES, "samples": []}},
        "ratings": None,
        **changes,
    }


def test_a_protocol_without_cases_says_so():
    page = evaluation_page("run", {Split.TEST: evaluation()})
    assert [part.text for part in parts(page) if isinstance(part, Note)] == [
        "No returning visitors.",
        "No cases in this split.",
    ]


def test_sample_visitors_show_titles_with_ids_and_ids_with_categories():
    titled = {"item_id": "7", "title": "Blue canvas sneakers", "category_id": "70"}
    untitled = {"item_id": "8", "title": None, "category_id": "70"}
    bare = {"item_id": "9", "title": None, "category_id": None}
    unknown = {"item_id": None, "title": None, "category_id": None}
    moment = "2015-09-01T10:00:00+00:00"
    sample = {
        "visitor_id": "anna",
        "moment": moment,
        "history_rows": 1,
        "history": [{"time": moment, "event": "view", **titled}],
        "relevant_items": 2,
        "relevant": [titled, unknown],
        "systems": {"popular": [item | {"is_hit": item is titled} for item in (bare, untitled, titled)]},
    }
    *_, columns, relevant = parts(page_of_two(0.5, 0.2, [sample]))
    history, lists = columns.blocks
    assert history.table.rows == [["2015-09-01 10:00", "view", "Blue canvas sneakers (7)"]]
    assert [row[1] for row in lists.table.rows] == ["9", "8 (70)", "✓ Blue canvas sneakers (7)"]
    assert relevant.text == "Relevant items (2): Blue canvas sneakers (7), unknown item"


def page_of_two(model: float, popular: float, samples: Sequence[dict] = (), *, has_unavailable: bool = False) -> Page:
    """Returns the page of two systems with these NDCG@20, also with only available items if others exist."""
    systems = {
        "model": {"value": model, "low": model - 0.1, "high": model + 0.1},
        "popular": {"value": popular, "low": popular - 0.1, "high": popular + 0.1, "p": 0.01},
    }
    pair = {"difference": model - popular, "low": 0.2, "high": 0.4, "p": 0.01 if model != popular else 1.0}
    counts = ("visitors", "cases", "cases_in_all", "relevant_items", "without_history", "without_relevant_items")
    ranking = {name: {"ndcg@20": figure, "coverage@20": {"value": 0.1}} for name, figure in systems.items()}
    protocol = {
        "protocol": "new items",
        "cases": dict.fromkeys((*counts, "unknown_item_share", "catalogue_items", "available_items"), 1),
        "primary": "seen_hidden",
        "rankings": {
            "seen_hidden": ranking,
            "seen_shown": None,
            "available_only": ranking if has_unavailable else None,
        },
        "groups": {},
        "pairs": {"ndcg@20": {"model": {"popular": pair}}},
        "samples": samples,
    }
    return evaluation_page("run", {Split.TEST: evaluation(protocols={"next_item": protocol})})


@pytest.mark.parametrize(("kinds", "is_shown"), [(["view", "transaction"], True), (["transaction"], False)])
def test_figures_by_event_kind_are_shown_if_there_are_several(kinds, is_shown):
    ranking = {"model": {"ndcg@20": {"value": 0.5, "low": 0.4, "high": 0.6}}}
    groups = {"transaction events": {"cases": 1, "relevant_items": 1, "ranking": ranking}}
    found = _draw_groups("key", groups, kinds)
    assert [part.title for part in found] == (["NDCG@20 by event kind"] if is_shown else [])


@pytest.mark.parametrize("has_unavailable", [True, False])
def test_a_note_has_the_result_with_only_available_items(has_unavailable):
    page = page_of_two(0.5, 0.2, has_unavailable=has_unavailable)
    notes = [part.text for part in parts(page) if isinstance(part, Note) and part.text.startswith("With only")]
    expected = (
        "With only available items as candidates (1 of 1 items; unavailable relevant items count as misses): "
        "NDCG@20 is 0.500 for model and 0.200 for popular, the best baseline."
    )
    assert notes == ([expected] if has_unavailable else [])


@pytest.mark.parametrize(
    ("model", "popular", "differences", "summary"),
    [
        (0.5, 0.2, ("+0.3000†", "-0.3000†"), "model has the highest NDCG@20: 0.5000."),
        (0.0, 0.0, ("+0.0000", "+0.0000"), "All systems have the same NDCG@20: 0.0000."),
    ],
)
def test_every_pair_of_systems_has_its_difference(model, popular, differences, summary):
    page = page_of_two(model, popular)
    (table,) = [part.table for part in parts(page) if isinstance(part, Block) and part.title.startswith("Pairwise")]
    assert table.header == ["", "model", "popular"]
    assert table.rows == [["model", "–", differences[0]], ["popular", differences[1], "–"]]
    assert picture(page, "Systems by metric").summary.startswith(summary)


@pytest.mark.parametrize(
    ("skill", "verdict"),
    [
        (0.25, "The model's error is 25.0% lower."),
        (-0.5, "A constant is at least as good, so the error does not indicate good recommendations."),
        (None, "A constant is at least as good, so the error does not indicate good recommendations."),
    ],
)
def test_the_squared_error_is_compared_with_that_of_the_training_mean(skill, verdict):
    ratings = {"rows": 100, "mse": 0.05, "mse_of_training_mean": 0.06, "mse_of_one": 0.07, "skill": skill}
    page = evaluation_page("run", {Split.TEST: evaluation(ratings=ratings)})
    assert picture(page, "Squared error on event weights").summary == (
        f"MSE over 100 rows: 0.0500 for the model, 0.0600 for the training mean. {verdict}"
    )
