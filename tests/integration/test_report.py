"""Tests the three pages of a report after prepare, train (stopped once and resumed) and evaluate."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest

import preprocessing.cli
import trainer.cli
from common.sealed_json import decode_sealed, encode_sealed
from contract.layout import DatasetLayout
from contract.schema import Split
from preprocessing.pages.report import write_report as write_dataset_report
from tests.browser import needs_chromium, open_page, open_tables_by_keyboard, texts_outside
from tests.integration.report_figures import (
    Pictures,
    check_cell,
    data_pictures,
    evaluation_pictures,
    training_pictures,
)
from tests.preprocessing.shop import DAY_MS, START_MS, write_lines
from tests.trainer.tiny_runs import StopAfter
from tools.pictures import draw
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.distributed.preemption import Preempted
from trainer.pages import report
from trainer.pages.report import try_to_write_report, write_report
from trainer.runs.layout import RunLayout

pytestmark = [pytest.mark.integration, pytest.mark.slow, needs_chromium]

SETTINGS = ["epochs=2", "steps_per_execution=1", "input.batch_size=64", "model.dim=4"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A log of ten days, 12 visitors and 15 items: three events per visitor and day, and one invalid row."""
    kinds = ("view", "view", "addtocart", "view", "transaction")
    rows = [
        f"{START_MS + day * DAY_MS + index * 60_000 + visitor},v{visitor},{kinds[(day + index) % 5]},"
        f"<i{(visitor * day + index) % 15}>"
        for day in range(10)
        for visitor in range(12)
        for index in range(3)
    ]
    root = tmp_path_factory.mktemp("shop")
    write_lines(root / "events.csv", "timestamp,visitorid,event,itemid", *rows, f"{START_MS},v0,looked,<i0>")
    write_lines(root / "tree.csv", "categoryid,parentid", "10,", "20,10", "30,10", "40,")
    properties = [f"{START_MS},<i{item}>,categoryid,{(20, 30, 40)[item % 3]}" for item in range(15)]
    write_lines(root / "properties.csv", "timestamp,itemid,property,value", *properties)
    return root


@pytest.fixture(scope="module")
def workdir(shop) -> str:
    """A `notebook-nn` run that was preempted after one step, resumed and evaluated."""
    from common.settings import apply_settings
    from trainer.train import train

    data, workdir = str(shop / "dataset"), str(shop / "run")
    inputs = ["--events", str(shop / "events.csv"), "--item-properties", str(shop / "properties.csv")]
    inputs += ["--category-tree", str(shop / "tree.csv")]
    assert preprocessing.cli.main(["prepare", *inputs, "--output", data]) == 0
    config: RunConfig = apply_settings(PRESETS["notebook-nn"], SETTINGS)
    with pytest.raises(Preempted):
        train(config, data=data, workdir=workdir, stop=StopAfter(1))
    arguments = ["train", "--preset", "notebook-nn", "--data", data, "--workdir", workdir, "--set", *SETTINGS]
    assert trainer.cli.main(arguments) == 0
    assert trainer.cli.main(["evaluate", "--workdir", workdir]) == 0
    return workdir


def test_prepare_writes_the_report_of_its_dataset(workdir, shop):
    assert Path(DatasetLayout(str(shop / "dataset")).report).exists()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_the_three_pages_load_without_errors_or_requests(workdir, width, scheme):
    url = f"file://{RunLayout(workdir).report}"
    with open_page(url, width=width, scheme=scheme) as opened:
        page = opened.page
        assert page.locator("article:visible h1").all_text_contents() == ["Evaluation"], "evaluate opens its own page"
        page.keyboard.press("Tab")
        for name in ("Evaluation", "Training", "Data"):
            assert page.locator("article:visible h1").all_text_contents() == [name]
            for picture in page.locator("article:visible figure").all():
                assert picture.locator("svg[role=img][aria-label]").bounding_box()["height"] > 40
                assert picture.locator("details tbody tr").count() > 0
            assert texts_outside(page) == []
            assert page.evaluate("document.documentElement.scrollWidth") == width
            page.keyboard.press("ArrowLeft")
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids)), "ids are unique"
        assert (opened.messages, opened.requests) == ([], [url])


FIGURES = """article => [...article.querySelectorAll("section")].flatMap(section =>
  [...section.querySelectorAll("figure")].map(figure => ({
    section: section.querySelector("h2").textContent,
    title: figure.querySelector("figcaption").textContent,
    rows: [...figure.querySelectorAll("tbody tr")].map(row => [...row.cells].map(cell => cell.textContent)),
    texts: [...figure.querySelectorAll("svg text")].map(text => text.textContent),
  })))"""


def expected_pictures(page: str, workdir: str, shop: Path) -> Pictures:
    layout = RunLayout(workdir)
    if page == "data":
        return data_pictures(json.loads(Path(DatasetLayout(str(shop / "dataset")).statistics).read_text()))
    if page == "evaluation":
        return evaluation_pictures(json.loads(Path(layout.evaluation(Split.TEST)).read_text()))
    metrics, history = (
        [json.loads(line) for line in Path(path).read_text().splitlines()] for path in (layout.metrics, layout.history)
    )
    times = [time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(line["time"])) for line in history]
    return training_pictures(metrics, history, times)


@pytest.mark.parametrize("page", ["data", "training", "evaluation"])
def test_every_picture_shows_the_figures_of_its_file(workdir, shop, page):
    expected = expected_pictures(page, workdir, shop)
    with open_page(f"file://{RunLayout(workdir).report}") as opened:
        figures = opened.page.locator(f"#{page}").evaluate(FIGURES)
    found = {(figure["section"], figure["title"]): figure for figure in figures}
    assert len(found) == len(figures), "titles are unique within a section"
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        shown = found[name]["rows"]
        assert [len(row) for row in shown] == [len(row) for row in rows], name
        for texts, values in zip(shown, rows, strict=True):
            for text, value in zip(texts, values, strict=True):
                check_cell(text, value)


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Events by kind", 3),
        ("Top items by view", 10),
        ("Top 5 visitors, all events", 5),
        ("Events per split", 3),
        ("Visitors by event kind", 3),
    ],
)
def test_bars_are_labelled_with_the_names_and_counts_of_their_table(workdir, title, shown):
    with open_page(f"file://{RunLayout(workdir).report}") as opened:
        figures = opened.page.locator("#data").evaluate(FIGURES)
    (figure,) = [figure for figure in figures if figure["title"] == title]
    for row in figure["rows"][:shown]:
        assert row[0] in figure["texts"]
        # the share, if any, follows the count in brackets
        assert row[1] + (f" ({row[2]})" if len(row) > 2 else "") in figure["texts"]
    assert len(figure["texts"]) == 2 * shown


def test_every_system_has_its_row_in_the_picture(workdir):
    ranking = json.loads(Path(RunLayout(workdir).evaluation(Split.TEST)).read_text())["protocols"]["next_item"][
        "rankings"
    ]["seen_shown"]
    with open_page(f"file://{RunLayout(workdir).report}") as opened:
        figures = opened.page.locator("#evaluation").evaluate(FIGURES)
    texts = [figure["texts"] for figure in figures if figure["title"] == "Systems by metric"]
    assert all(set(ranking) <= set(drawn) for drawn in texts)


def test_the_keyboard_opens_the_tables_of_every_page(workdir):
    with open_page(f"file://{RunLayout(workdir).report}") as opened:
        page = opened.page
        for name in ("evaluation", "training", "data"):
            page.locator(f"label[for=show-{name}]").click()
            assert open_tables_by_keyboard(page) >= page.locator(f"#{name} figure summary").count() > 0
            assert page.locator(f"#{name} figure details:not([open])").count() == 0


def test_all_pages_are_printed_and_fit_the_paper(workdir):
    # A4 with margins of 1 cm at 96 pixels per inch: 190 mm are 718 pixels
    with open_page(f"file://{RunLayout(workdir).report}", width=718) as opened:
        page = opened.page
        page.emulate_media(media="print")
        assert page.locator("article:visible h1").all_text_contents() == ["Data", "Training", "Evaluation"]
        assert page.locator(".tabs:visible, .contents:visible, details:visible").count() == 0
        ends = page.locator("svg, table:visible").evaluate_all(
            "found => found.map(e => e.getBoundingClientRect().right)"
        )
        assert max(ends) <= 718


def test_relevant_items_are_marked_in_the_lists(workdir):
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
    assert hits, "lists contain ten of the fifteen items, so some are hits"
    with open_page(f"file://{RunLayout(workdir).report}") as opened:
        marked = opened.page.locator("section", has_text="Next item (test): sample visitors").locator("td.marked")
        assert marked.count() == hits
        assert all(text.startswith("✓ <i") for text in marked.all_text_contents())


def test_the_history_contains_the_preemption_and_the_resumption(workdir):
    lines = [json.loads(line) for line in Path(RunLayout(workdir).history).read_text().splitlines()]
    assert [line["event"] for line in lines][:4] == ["started", "checkpoint", "preempted", "resumed"]
    assert lines[-1]["event"] == "finished"


def test_the_picture_of_the_readme_can_be_drawn_from_a_run(workdir, tmp_path):
    draw(Path(RunLayout(workdir).report), tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_data_page_of_a_run_shows_the_comparison_with_the_baseline(workdir, shop):
    compared = shop / "compared"
    shutil.copytree(shop / "dataset", compared)
    check = {"name": "rows", "baseline": 60, "found": 40, "distance": 0.3333, "warn": 0.25, "fail": None}
    comparison = {"baseline": "yesterday", "checks": [check | {"verdict": "warning"}]}
    Path(DatasetLayout(str(compared)).comparison).write_text(json.dumps(comparison))
    write_dataset_report(str(compared))
    html = Path(write_report(workdir, data=str(compared))).read_text()
    assert "Compared with yesterday" in html
    assert "Outside the limits: rows." in html
    write_report(workdir)


def test_a_report_without_its_dataset_has_the_other_pages(workdir, tmp_path, caplog):
    path = write_report(workdir, data=str(tmp_path / "gone"))
    html = Path(path).read_text()
    assert re.findall('<article class="page" id="([a-z]+)">', html) == ["training", "evaluation"]
    assert "the report has no Data page" in caplog.text


def test_an_error_in_the_report_is_logged_and_not_raised(workdir, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "training_page", fail)
    assert try_to_write_report(workdir, data=None, shown="training") is None
    assert f"draw the report with `cartwheel report --workdir {workdir}`" in caplog.text


def test_a_report_excludes_another_dataset(workdir, shop, caplog):
    other = shop / "other"
    shutil.copytree(shop / "dataset", other)
    manifest = decode_sealed((other / "manifest.json").read_bytes())
    name = next(iter(manifest["files"]))
    manifest["files"][name] = "0" * 64
    (other / "manifest.json").write_bytes(encode_sealed(manifest, sort_keys=True))
    html = Path(write_report(workdir, data=str(other))).read_text()
    assert re.findall('<article class="page" id="([a-z]+)">', html) == ["training", "evaluation"]
    assert f"the run was not trained on the dataset at {other}" in caplog.text
    write_report(workdir)


def test_an_evaluation_of_an_earlier_version_only_removes_its_own_page(workdir, caplog):
    path = Path(RunLayout(workdir).evaluation(Split.TEST))
    original = path.read_text()
    evaluation = json.loads(original)
    del evaluation["protocols"]["next_item"]["primary"]
    path.write_text(json.dumps(evaluation))
    html = Path(write_report(workdir)).read_text()
    path.write_text(original)
    write_report(workdir)
    assert re.findall('<article class="page" id="([a-z]+)">', html) == ["data", "training"]
    assert "wrote the evaluation, without the field 'primary'; evaluate the run again" in caplog.text
