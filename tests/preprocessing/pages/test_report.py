"""Tests a dataset's report in a browser, and the figures of the real raw sample, which were computed by hand."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from common.report.page import render
from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from contract.schema import DEFAULT_KINDS
from preprocessing.columns import encode_columns
from preprocessing.config import PrepareConfig, SplitConfig
from preprocessing.kinds import KindConfig
from preprocessing.pages import report
from preprocessing.pages.data import data_page
from preprocessing.pages.reading import format_sparsity
from preprocessing.pages.report import try_to_write_report, write_report
from preprocessing.pipeline import prepare
from preprocessing.statistics.correlation import COLUMNS
from preprocessing.statistics.popularity import count_items_by_split, describe_items
from preprocessing.statistics.summaries import ReadingSummary, count_events, describe_events, describe_reading
from preprocessing.timelines import NEVER, Cleaning, SplitTimelines, Timelines
from tests.browser import needs_chromium, open_page, open_tables_by_keyboard, texts_outside
from tests.preprocessing.shop import DAY_MS, START_MS, small_shop, write_lines

pytestmark = pytest.mark.integration

REAL_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
RAW_SAMPLE = REAL_DATA / "retailrocket_raw_sample"
LOOKS = [(1280, "light"), (390, "dark")]
"""Width and colour scheme of a screen and of a phone. The scheme does not affect sizes and positions."""


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
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_makes_no_requests_and_each_picture_has_a_table(dataset, width, scheme):
    check_looks(DatasetLayout(dataset).report, width, scheme)


def check_looks(path, width, scheme):
    """Checks that there are no requests or messages, and that each picture is complete and has a table."""
    with open_page(f"file://{path}", width=width, scheme=scheme) as opened:
        page = opened.page
        assert opened.messages == []
        assert opened.requests == [f"file://{path}"]
        pictures = page.locator("figure")
        assert pictures.count() >= 20
        for picture in pictures.all():
            assert picture.locator("svg[role=img][aria-label]").bounding_box()["height"] > 60
            assert picture.locator("details tbody tr").count() > 0
        # bars, cells and curves, in addition to axes and grid
        count = "all => all.map(svg => svg.querySelectorAll('path').length)"
        assert min(page.locator("figure svg").evaluate_all(count)) >= 3
        assert texts_outside(page) == []
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide == width, "wide content scrolls in its own box"


@pytest.fixture(scope="module", params=["retailrocket_raw_sample", "retailrocket_buyers"])
def real_dataset(request, tmp_path_factory) -> str:
    folder = REAL_DATA / request.param
    if not folder.exists():
        pytest.skip(f"needs ../shared/data/{request.param}")
    root = str(tmp_path_factory.mktemp("real") / "dataset")
    prepare(PrepareConfig(events=str(folder / "events*.csv")), root)
    return root


@needs_chromium
@pytest.mark.slow
def test_every_picture_of_real_data_is_readable(real_dataset):
    path = write_report(real_dataset)
    for width, scheme in LOOKS:
        check_looks(path, width, scheme)


@needs_chromium
def test_every_table_can_be_opened_by_keyboard(dataset):
    with open_page(f"file://{DatasetLayout(dataset).report}") as opened:
        summaries = opened.page.locator("figure summary").count()
        assert open_tables_by_keyboard(opened.page) >= summaries
        assert opened.page.locator("figure details[open]").count() == summaries


@needs_chromium
def test_the_facts_equal_the_statistics(dataset):
    statistics = statistics_of(dataset)
    with open_page(f"file://{DatasetLayout(dataset).report}") as opened:
        facts = dict(
            opened.page.locator(".facts div").evaluate_all("f => f.map(e => [...e.children].map(c => c.textContent))")
        )
    assert facts["rows read"] == str(statistics["events"]["rows"])
    assert facts["items"] == str(statistics["items"]["items"])


@pytest.mark.parametrize(
    ("pairs", "possible", "expected"),
    [
        (7_390, 5_000 * 6_610, "99.978%"),  # 0.02236% have events
        (2_145_179, 1_407_580 * 235_061, "99.99935%"),  # 0.000648%
        (3, 8, "62.5%"),
        (8, 8, "0.0%"),
    ],
)
def test_the_difference_of_sparsity_from_100_percent_has_two_digits(pairs, possible, expected):
    assert format_sparsity(pairs, possible) == expected


@needs_chromium
def test_markup_in_ids_is_shown_as_text_and_a_single_day_is_drawn(tmp_path):
    markup, formula = "<img src=x onerror=alert(1)>" + "long" * 60, r"$\alpha"
    events = write_lines(
        tmp_path / "events.csv",
        "timestamp,visitorid,event,itemid",
        *(f"{1440000000000 + n},v{n % 5},view,{markup if n % 2 else formula}" for n in range(30)),
        "1440000000000,v,looked,<b>",
    )
    prepare(PrepareConfig(events=events, max_reject_share=0.5), str(tmp_path / "dataset"))
    with open_page(f"file://{write_report(str(tmp_path / 'dataset'))}", width=390) as opened:
        assert (opened.messages, len(opened.requests)) == ([], 1)
        assert table_of(opened.page, "Top items by view")[0][0] in (markup, formula)
        assert "1440000000000,v,looked,<b>" in opened.page.locator("body").text_content()
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 390


def one_busy_day(num_items: int, id_letters: int) -> dict:
    """Returns the statistics of a shop with many items, long ids, and all events on one day."""
    random = np.random.default_rng(0)
    num_visitors, num_rows = 50_000, 2 * num_items
    ids = pa.array([f"{'Ж<&' * (id_letters // 3)}{number:06d}"[-id_letters:] for number in range(num_items)])
    order = np.sort(random.integers(0, num_visitors, num_rows))
    log = Timelines(
        visitors=ids.slice(0, num_visitors),
        visitor_code=np.unique(order, return_inverse=True)[1],
        timestamp_ms=START_MS + np.sort(random.integers(0, DAY_MS // 4, num_rows)),  # 16:00 to 22:00
        event=(random.random(num_rows) < 0.03).astype(np.int8),
        items=ids,
        item_code=np.r_[np.arange(num_items), random.zipf(1.5, num_items) % num_items],
        weight=np.full(num_rows, 2.5, np.float32),
        robot_from_ms=np.full(num_visitors, NEVER),
    )
    splits = np.digitize(np.arange(num_rows) / num_rows, (0.8, 0.9))
    examples = {"time cannot be read": (("events.csv", 5, "x" * 200),)}
    names = ids.slice(0, 900).to_pylist()
    known = ("outside_vocabulary", "without_training_events", "with_category", "with_category_outside_tree")
    known += ("with_title", "with_price", "invalid_prices", "with_availability", "available")
    tree = ("categories", "roots", "levels", "cycles", "orphans")
    return {
        "events": describe_reading(
            ReadingSummary(rows=num_rows, rejects=Counter(dict.fromkeys(examples, 7)), examples=examples)
        )
        | describe_events(count_events(SplitTimelines(log, splits, robot_events=0), 3), Cleaning(0, 0), DEFAULT_KINDS),
        "items": describe_items(encode_columns(count_items_by_split(log, splits, 3)), DEFAULT_KINDS),
        "correlation": {"columns": list(COLUMNS), "matrix": [[None] * len(COLUMNS)] * len(COLUMNS)},
        "item_properties": None,
        "category_tree": describe_reading(ReadingSummary()) | dict.fromkeys(tree, 900),
        "catalogue": dict.fromkeys(known, 0)
        | {
            "items": num_items,
            "events_by_category": [
                {"category_id": name, "path": [names[index % 7], name], "events": 1000 - index}
                for index, name in enumerate(names)
            ],
        },
    }


@needs_chromium
def test_every_picture_is_readable_with_long_ids_many_items_and_a_single_day(dataset, tmp_path):
    statistics = one_busy_day(200_000, 240)
    path = tmp_path / "report.html"
    cuts = {"validation_from_ms": START_MS + DAY_MS // 5, "test_from_ms": START_MS + DAY_MS // 4}
    page = data_page("busy", statistics, replace(read_manifest(dataset), **cuts))
    path.write_text(render([page], title="busy", shown="data"))
    assert path.stat().st_size < 2_000_000
    for width, scheme in LOOKS:
        check_looks(path, width, scheme)


@needs_chromium
@pytest.mark.slow
def test_every_picture_is_readable_with_as_many_kinds_as_allowed(tmp_path):
    names = ("view", *(f"{'Ж<&$' * 12}{number}" for number in range(31)))
    lines = [f"{START_MS + n * DAY_MS // 9},v{n % 7},{names[n % 32]},i{n % 5}" for n in range(160)]
    events = write_lines(tmp_path / "events.csv", "timestamp,visitorid,event,itemid", *lines)
    prepare(PrepareConfig(events=events, kinds=KindConfig(names=names)), str(tmp_path / "dataset"))
    path = write_report(str(tmp_path / "dataset"))
    for width, scheme in LOOKS:
        check_looks(path, width, scheme)


@pytest.mark.parametrize(
    ("method", "note"), [("random", "later events leak into training"), ("none", "There is no held-out data")]
)
def test_manifest_and_page_name_a_split_that_is_not_by_time(tmp_path, method, note):
    lines = [f"{1440000000000 + n * 60_000},v{n % 7},view,i{n % 5}" for n in range(200)]
    events = write_lines(tmp_path / "events.csv", "timestamp,visitorid,event,itemid", *lines)
    prepare(PrepareConfig(events=events, split=SplitConfig(method=method)), str(tmp_path / "dataset"))
    manifest = read_manifest(str(tmp_path / "dataset"))
    assert (manifest.split_method, manifest.validation_from_ms) == (method, None)
    assert sum(info.target_rows for info in manifest.splits.values()) == 200
    assert set(manifest.splits) == ({"train"} if method == "none" else {"train", "validation", "test"})
    html = Path(write_report(str(tmp_path / "dataset"))).read_text()
    assert note in html
    assert "Events by kind, without view: no data." in html
    # only views occur, so there is no funnel
    assert "to transaction, visitor-item pairs" not in html
    assert "Visitors by event kind" not in html


def test_a_redrawn_report_is_identical(dataset):
    before = Path(DatasetLayout(dataset).report).read_bytes()
    os.remove(DatasetLayout(dataset).report)
    assert write_report(dataset) == DatasetLayout(dataset).report
    assert Path(DatasetLayout(dataset).report).read_bytes() == before
    assert "report.html" not in read_manifest(dataset).files, "a redrawn report could differ from its checksum"


def test_an_error_of_the_report_is_only_logged(dataset, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(report, "read_data_page", fail)
    assert try_to_write_report(dataset) is None
    assert f"draw the report with `cartwheel report --data {dataset}`" in caplog.text


@pytest.mark.skipif(not RAW_SAMPLE.exists(), reason="needs ../shared/data/retailrocket_raw_sample")
def test_the_figures_of_the_raw_sample(tmp_path):
    """The comments show the shell commands that computed each figure; FILE is events.csv."""
    root = str(tmp_path / "dataset")
    prepare(PrepareConfig(events=str(RAW_SAMPLE / "events.csv")), root)
    statistics = statistics_of(root)
    events, items = statistics["events"], statistics["items"]
    # tail -n +2 FILE | wc -l; … | sort | uniq -d | wc -l
    assert (events["rows"], events["duplicates"], events["events"]) == (9385, 3, 9382)
    # sort -u | cut -d, -f3 | sort | uniq -c; distinct values of the fields 2, 4, and 2 with 4
    assert events["by_kind"] == {"view": 9075, "addtocart": 261, "transaction": 46}
    assert (events["visitors"], items["items"], events["funnel"]["pairs"]) == (5000, 6610, 7390)
    # … | cut -d, -f4 | sort | uniq -c | sort -nr, of views; the same with field 2, of all events
    assert items["top_items_by_kind"]["view"][:2] == [
        {"item_id": "153401", "events": 33},
        {"item_id": "95489", "events": 30},
    ]
    assert [row["events"] for row in events["top_visitors"][:2]] == [55, 52]
    # sort -t, -k2,2 -k1,1n | awk -F, '$2 != v || $1 - t > 1800000 {n++} {v = $2; t = $1} END {print n}'
    assert events["sessions"]["sessions"] == 6229
    # awk over -k2,2 -k4,4 -k1,1n: pairs with a view before the first addtocart
    to_cart, to_purchase = events["funnel"]["steps"]
    assert to_cart == {"kind": "addtocart", "after_previous": 149, "after_first": 149, "after_all": 149}
    # the same, counting transactions after an addtocart, after a view, and after both in order
    assert to_purchase == {"kind": "transaction", "after_previous": 41, "after_first": 40, "after_all": 34}
    # … | awk -F, '{print int($1 / 86400000)}' | sort | uniq -c: day 16583 since 1970
    assert sum(events["by_day"]["2015-05-28"].values()) == 131
    # sort -n | awk -F, '!seen[$4]++ && int($1 / 86400000) == 16583 {n++} END {print n}', and of field 2
    assert items["new_items_by_day"]["2015-05-28"] == 104
    assert events["new_visitors_by_day"]["2015-05-28"] == 42
    # awk -F, '{h = int($1 / 3600000); n[(int(h / 24) + 3) % 7, h % 24]++}': Tuesdays from 21:00, the most of all
    assert max(map(max, events["by_weekday_hour"])) == events["by_weekday_hour"][1][21] == 153
    # cut -d, -f4 | sort | uniq -c | awk '{print $1}' | sort -n | uniq -c: items with 1, 2 events; visitors; sessions
    assert list(items["events_per_item"]["histogram"].items())[:2] == [("1", 5118), ("2", 915)]
    assert list(events["events_per_visitor"]["histogram"].items())[:2] == [("1", 3495), ("2", 736)]
    assert list(events["sessions"]["events_per_session"]["histogram"].items())[:2] == [("1", 4837), ("2", 789)]
    # the same counts of items, ascending, piped to awk '{w += NR * $1; s += $1} END {print (2*w - (NR+1)*s) / (NR*s)}'
    assert items["concentration"]["gini"] == 0.252425
    # sort -nr | head -1322 | awk '{s += $1} END {print s}': 1,322 of 6,610 items have 3,924 of 9,382 events
    assert items["concentration"]["top_20_percent_share"] == pytest.approx(3924 / 9382, abs=1e-6)
    # awk over the 938 rows from the test cut, 1441163487914: 783 and 838 have an item or a visitor without a row before
    # the validation cut, 1439928628619
    assert items["by_split"]["test"]["events_of_new_items"] == 783
    assert events["by_split"]["test"]["events_of_new_visitors"] == 838
