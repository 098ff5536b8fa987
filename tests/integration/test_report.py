"""The three pages as the commands leave them: prepare, train (stopped once and gone on with) and evaluate."""

import json
import re
import shutil
from pathlib import Path

import pytest

import preprocessing.cli
import trainer.cli
from contract.layout import DatasetLayout, RunLayout
from contract.schema import Split
from tests.browser import needs_chromium, open_page
from tests.preprocessing.shop import DAY_MS, START_MS, write_lines
from tests.trainer.runs import StopAfter
from trainer import report
from trainer.config import RunConfig
from trainer.preemption import Preempted
from trainer.presets import PRESETS
from trainer.report import try_to_write_report, write_report

pytestmark = [pytest.mark.integration, needs_chromium]

SETTINGS = ["epochs=2", "steps_per_call=1", "input.batch_size=64", "model.dim=4"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Ten days of twelve visitors, each with three events a day of fifteen items, kinds in turn."""
    kinds = ("view", "view", "addtocart", "view", "transaction")
    rows = [
        f"{START_MS + day * DAY_MS + place * 60_000 + visitor},v{visitor},{kinds[(day + place) % 5]},"
        f"<i{(visitor * day + place) % 15}>"
        for day in range(10)
        for visitor in range(12)
        for place in range(3)
    ]
    root = tmp_path_factory.mktemp("shop")
    write_lines(root / "events.csv", "timestamp,visitorid,event,itemid", *rows)
    return root


@pytest.fixture(scope="module")
def workdir(shop) -> str:
    """A run of the notebook's network, preempted after a step."""
    from contract.settings import apply_settings
    from trainer.train import train

    data, workdir = str(shop / "dataset"), str(shop / "run")
    assert preprocessing.cli.main(["prepare", "--events", str(shop / "events.csv"), "--output", data]) == 0
    config: RunConfig = apply_settings(PRESETS["notebook-nn"], SETTINGS)
    with pytest.raises(Preempted):
        train(config, data=data, workdir=workdir, stop=StopAfter(1))
    arguments = ["train", "--preset", "notebook-nn", "--data", data, "--workdir", workdir, "--set", *SETTINGS]
    assert trainer.cli.main(arguments) == 0
    assert trainer.cli.main(["evaluate", "--workdir", workdir]) == 0
    return workdir


def cells(page, title: str) -> list[list[str]]:
    figure = page.locator("article:visible figure", has=page.get_by_text(title, exact=True)).first
    return figure.locator("tbody tr").evaluate_all("rows => rows.map(row => [...row.cells].map(c => c.textContent))")


def test_prepare_draws_the_page_of_its_dataset(workdir, shop):
    assert Path(DatasetLayout(str(shop / "dataset")).report).exists()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_three_pages_without_an_error_or_a_request(workdir, width, scheme):
    url = f"file://{RunLayout(workdir).report}"
    with open_page(url, width=width, scheme=scheme) as opened:
        page = opened.page
        assert page.locator("article:visible h1").all_text_contents() == ["Evaluation"], "what evaluate refreshed"
        page.keyboard.press("Tab")
        for name in ("Training", "Data"):
            page.keyboard.press("ArrowLeft")
            assert page.locator("article:visible h1").all_text_contents() == [name]
            for picture in page.locator("article:visible figure").all():
                assert picture.locator("svg[role=img][aria-label]").bounding_box()["height"] > 40
                assert picture.locator("details tbody tr").count() > 0
            assert page.evaluate("document.documentElement.scrollWidth") == width
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids)), "an id of its own for all that is pointed to"
        assert (opened.messages, opened.requests) == ([], [url])


def test_the_evaluation_page_has_the_figures_of_the_file(workdir):
    evaluation = json.loads(Path(RunLayout(workdir).evaluation(Split.TEST)).read_text())
    ranking = evaluation["protocols"]["next_item"]["ranking"]
    with open_page(f"file://{RunLayout(workdir).report}") as opened:
        page = opened.page
        section = page.locator("section", has=page.get_by_role("heading", name="Next item (test)", exact=True))
        rows = (
            section.locator("figure")
            .first.locator("tbody tr")
            .evaluate_all("rows => rows.map(row => [...row.cells].map(c => c.textContent))")
        )
        ratings = cells(page, "Squared error on event weights")
        shown = section.locator("figure svg text").all_text_contents()
    assert len(rows) == 4 * len(ranking)
    for system, metric, value, low, *_ in rows:
        estimate = ranking[system][metric]
        assert (float(value), float(low)) == pytest.approx((estimate["value"], estimate["low"]), rel=1e-3)
    assert set(ranking) <= set(shown), "every system has its row in the picture"
    assert float(ratings[0][1]) == pytest.approx(evaluation["ratings"]["mse"], rel=1e-3)
    assert float(ratings[1][1]) == pytest.approx(evaluation["ratings"]["mse_of_training_mean"], rel=1e-3)


def test_hits_are_marked_where_a_list_holds_what_came_next(workdir):
    samples = json.loads(Path(RunLayout(workdir).evaluation(Split.TEST)).read_text())["protocols"]["next_item"][
        "samples"
    ]
    assert 0 < len(samples) <= 10
    assert len({sample["visitor_id"] for sample in samples}) == len(samples), "each visitor once"
    hits = 0
    for sample in samples:
        relevant = {item["item_id"] for item in sample["relevant"]}
        for ranked in sample["systems"].values():
            assert [item["is_hit"] for item in ranked] == [item["item_id"] in relevant for item in ranked]
            hits += sum(item["is_hit"] for item in ranked)
    assert hits, "of fifteen items ten are shown"
    with open_page(f"file://{RunLayout(workdir).report}") as opened:
        marked = opened.page.locator("section", has_text="Next item (test): visitors").locator("td.marked")
        assert marked.count() == hits
        assert all(text.startswith("✓ <i") for text in marked.all_text_contents())


def test_the_training_page_tells_of_the_stop_and_the_going_on(workdir):
    lines = [json.loads(line) for line in Path(RunLayout(workdir).history).read_text().splitlines()]
    assert [line["what"] for line in lines][:4] == ["began", "checkpoint", "preempted", "went on"]
    assert lines[-1]["what"] == "ended"
    metrics = [json.loads(line) for line in Path(RunLayout(workdir).metrics).read_text().splitlines()]
    losses = [line["loss"] for line in metrics if "loss" in line]
    with open_page(f"file://{write_report(workdir)}") as opened:
        assert [row[1] for row in cells(opened.page, "Time line of the run")] == [line["what"] for line in lines]
        drawn = [float(row[2]) for row in cells(opened.page, "Loss")]
        architecture = cells(opened.page, "Architecture: neural")
    assert drawn == pytest.approx(losses, rel=1e-3)
    # embeddings of 4 side by side: 8 numbers into the first of the layers of 80, 40, 20 and 1
    assert ["dense 1, relu", "8 × 80", "side by side", "yes"] in architecture


def test_the_runs_data_page_has_what_its_dataset_was_compared_with(workdir, shop):
    compared = shop / "compared"
    shutil.copytree(shop / "dataset", compared)
    check = {"name": "rows", "baseline": 60, "found": 40, "distance": 0.3333, "warn": 0.25, "fail": None}
    comparison = {"baseline": "yesterday", "checks": [check | {"verdict": "warning"}]}
    Path(DatasetLayout(str(compared)).comparison).write_text(json.dumps(comparison))
    html = Path(write_report(workdir, data=str(compared))).read_text()
    assert "Compared with yesterday" in html
    assert "Unlike the baseline: rows." in html
    write_report(workdir)


def test_a_run_whose_dataset_is_gone_keeps_its_other_pages(workdir, tmp_path, caplog):
    path = write_report(workdir, data=str(tmp_path / "gone"))
    html = Path(path).read_text()
    assert re.findall('<article class="page" id="([a-z]+)">', html) == ["training", "evaluation"]
    assert "the report has no Data page" in caplog.text


def test_a_report_that_cannot_be_drawn_loses_nothing(workdir, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "training_page", fail)
    assert try_to_write_report(workdir, data=None, shown="training") is None
    assert "could not be drawn; nothing else is missing" in caplog.text
