"""The report of a dataset, in a browser; and the figures of the real raw sample, which were worked out by hand."""

import json
import os
from pathlib import Path

import pytest

from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from preprocessing import report
from preprocessing.config import PrepareConfig, SplitConfig
from preprocessing.pipeline import prepare
from preprocessing.report import try_to_write_report, write_report
from tests.browser import needs_chromium, open_page
from tests.preprocessing.shop import small_shop, write_lines

pytestmark = pytest.mark.integration

RAW_SAMPLE = Path(__file__).resolve().parents[3] / "shared" / "data" / "retailrocket_raw_sample"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("prepared") / "dataset")
    prepare(PrepareConfig(**small_shop(tmp_path_factory.mktemp("shop"))), root)
    write_report(root)
    return root


def statistics_of(root: str) -> dict:
    return json.loads(Path(DatasetLayout(root).statistics).read_text())


def table_of(page, title: str) -> list[list[str]]:
    figure = page.locator("figure", has=page.locator("figcaption", has_text=title)).first
    return figure.locator("tbody tr").evaluate_all("rows => rows.map(row => [...row.cells].map(c => c.textContent))")


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_asks_for_nothing_and_each_picture_has_its_table(dataset, width, scheme):
    with open_page(f"file://{DatasetLayout(dataset).report}", width=width, scheme=scheme) as opened:
        page = opened.page
        assert opened.messages == []
        assert opened.requests == [f"file://{DatasetLayout(dataset).report}"]
        pictures = page.locator("figure")
        assert pictures.count() >= 20
        for picture in pictures.all():
            assert picture.locator("svg[role=img][aria-label]").bounding_box()["height"] > 60
            assert picture.locator("details tbody tr").count() > 0
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide == width, "what is wider than a phone scrolls in its own box"


@needs_chromium
def test_the_keyboard_reaches_and_opens_every_table(dataset):
    with open_page(f"file://{DatasetLayout(dataset).report}") as opened:
        page = opened.page
        summaries = page.locator("figure summary").count()
        opened_by_key = 0
        for _ in range(20 * summaries):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.tagName") == "SUMMARY":
                page.keyboard.press("Enter")
                opened_by_key += 1
            if page.evaluate("document.activeElement === document.body"):
                break
        assert page.locator("figure details[open]").count() == summaries <= opened_by_key


@needs_chromium
def test_the_figures_are_those_of_the_statistics(dataset):
    statistics = statistics_of(dataset)
    with open_page(f"file://{DatasetLayout(dataset).report}") as opened:
        facts = dict(
            opened.page.locator(".facts div").evaluate_all("f => f.map(e => [...e.children].map(c => c.textContent))")
        )
        days = table_of(opened.page, "Events a day, by kind")
        top = table_of(opened.page, "Most viewed items")
        categories = table_of(opened.page, "Views by category")
    assert facts["rows read"] == str(statistics["events"]["rows"])
    assert facts["items"] == str(statistics["items"]["items"])
    assert days == [[day, *map(str, kinds.values())] for day, kinds in statistics["events"]["by_day"].items()]
    assert top == [[row["item_id"], str(row["events"])] for row in statistics["items"]["top_items"]["view"]]
    assert [row[2] for row in categories] == [str(row["views"]) for row in statistics["catalogue"]["views_by_category"]]


@needs_chromium
def test_markup_in_ids_and_one_day_of_events_are_shown_as_they_are(tmp_path):
    strange, formula = "<img src=x onerror=alert(1)>" + "long" * 60, r"$\alpha"
    events = write_lines(
        tmp_path / "events.csv",
        "timestamp,visitorid,event,itemid",
        *(f"{1440000000000 + n},v{n % 5},view,{strange if n % 2 else formula}" for n in range(30)),
        "1440000000000,v,looked,<b>",
    )
    prepare(PrepareConfig(events=events, max_reject_share=0.5), str(tmp_path / "dataset"))
    with open_page(f"file://{write_report(str(tmp_path / 'dataset'))}", width=390) as opened:
        assert (opened.messages, len(opened.requests)) == ([], 1)
        assert table_of(opened.page, "Most viewed items")[0][0] in (strange, formula)
        assert "1440000000000,v,looked,<b>" in opened.page.locator("body").text_content()
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize(
    ("method", "told"), [("random", "later events leak into training"), ("none", "Nothing was held back")]
)
def test_other_splits_are_named_for_what_they_are(tmp_path, method, told):
    lines = [f"{1440000000000 + n * 60_000},v{n % 7},view,i{n % 5}" for n in range(90)]
    events = write_lines(tmp_path / "events.csv", "timestamp,visitorid,event,itemid", *lines)
    prepare(PrepareConfig(events=events, split=SplitConfig(method=method)), str(tmp_path / "dataset"))
    html = Path(write_report(str(tmp_path / "dataset"))).read_text()
    assert told in html
    assert "Carts and transactions: there is none." in html


def test_the_report_can_be_drawn_anew_and_is_the_same(dataset):
    before = Path(DatasetLayout(dataset).report).read_bytes()
    os.remove(DatasetLayout(dataset).report)
    assert write_report(dataset) == DatasetLayout(dataset).report
    assert Path(DatasetLayout(dataset).report).read_bytes() == before
    assert "report.html" not in read_manifest(dataset).files, "drawn anew, it would no longer be what was listed"


def test_a_report_that_cannot_be_drawn_loses_nothing(dataset, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "read_data_page", fail)
    assert try_to_write_report(dataset) is None
    assert "the dataset is complete, but its report could not be drawn" in caplog.text


@pytest.mark.skipif(not RAW_SAMPLE.exists(), reason="needs ../shared/data/retailrocket_raw_sample")
def test_the_raw_samples_figures(tmp_path):
    """Each figure found again by plain commands over the file, as the comments tell; FILE is events.csv."""
    root = str(tmp_path / "dataset")
    prepare(PrepareConfig(events=str(RAW_SAMPLE / "events.csv")), root)
    statistics = statistics_of(root)
    events, items = statistics["events"], statistics["items"]
    # tail -n +2 FILE | wc -l; … | sort | uniq -d | wc -l
    assert (events["rows"], events["duplicates"], events["events"]) == (9385, 3, 9382)
    # sort -u | cut -d, -f3 | sort | uniq -c, and the distinct values of the fields 2, 4, and 2 with 4
    assert events["by_kind"] == {"view": 9075, "addtocart": 261, "transaction": 46}
    assert (events["visitors"], items["items"], events["funnel"]["pairs"]) == (5000, 6610, 7390)
    # … | cut -d, -f4 | sort | uniq -c | sort -nr, of views; and of field 2, of all
    assert items["top_items"]["view"][:2] == [{"item_id": "153401", "events": 33}, {"item_id": "95489", "events": 30}]
    assert [row["events"] for row in events["top_visitors"]["all"][:2]] == [55, 52]
    # sort -t, -k2,2 -k1,1n | awk -F, '$2 != v || $1 - t > 1800000 {n++} {v = $2; t = $1} END {print n}'
    assert events["sessions"]["sessions"] == 6229
    # awk over -k2,2 -k4,4 -k1,1n: pairs whose first addtocart comes after a view
    assert events["funnel"]["carted_after_view"] == 149
    # … | awk -F, '{print int($1 / 86400000)}' | sort | uniq -c: day 16583 since 1970
    assert sum(events["by_day"]["2015-05-28"].values()) == 131
