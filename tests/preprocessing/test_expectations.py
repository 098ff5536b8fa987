"""Compares a dataset with its baseline; the expected distances were computed by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from common.errors import ContractError
from common.settings import apply_settings
from contract.layout import DatasetLayout
from preprocessing.config import ExpectationConfig, Limit, PrepareConfig
from preprocessing.expectations import (
    Expectations,
    check_figures,
    check_items,
    popularity_distance,
    read_expectations,
)
from preprocessing.pages.report import write_report
from preprocessing.pipeline import prepare
from tests.preprocessing.shop import event, write_lines

BASELINE = Expectations(
    rows=1000,
    reject_share=0.001,
    reject_reasons=("empty id", "unknown event kind"),
    reject_shares=(0.001, 0.0),
    event_kinds=("view", "addtocart", "transaction"),
    event_shares=(0.9, 0.07, 0.03),
    first_day="2015-05-03",
    last_day="2015-09-18",
    category_share=0.8,
    price_share=0.5,
    availability_share=1.0,
    min_price=1.0,
    max_price=100.0,
)


def verdicts(**changes) -> dict[str, tuple[float, str]]:
    checks = check_figures(BASELINE, replace(BASELINE, **changes), ExpectationConfig())
    return {check.name: (pytest.approx(check.distance), check.verdict) for check in checks}


def test_equal_figures_are_within_all_limits():
    assert {verdict for _, verdict in verdicts().values()} == {"ok"}


def test_each_figure_is_compared_with_its_own_limits():
    # a third fewer rows: above .25, not above .5; a tenth of them: .9
    assert verdicts(rows=667)["rows"] == (0.333, "warn")
    assert verdicts(rows=100)["rows"] == (0.9, "fail")
    assert verdicts(rows=1600)["rows"] == (0.6, "fail"), "more rows are as suspicious as fewer"
    # views .9 to .85, carts .07 to .12: the greatest change is .05
    assert verdicts(event_shares=(0.85, 0.12, 0.03))["event_shares"] == (0.05, "warn")
    assert verdicts(reject_share=0.021)["rejects"] == (0.02, "fail")
    assert verdicts(category_share=0.7, price_share=0.9)["presence"] == (0.1, "warn"), "an increase compensates nothing"
    assert verdicts(last_day="2015-09-16")["days_behind"] == (2, "warn")
    assert verdicts(last_day="2015-09-20")["days_behind"] == (0, "ok")


def test_shares_of_event_kinds_are_compared_by_name():
    # another order changes nothing; a kind that only one dataset has counts from 0: wishlist +.04, view -.04
    kinds = {"event_kinds": ("transaction", "wishlist", "addtocart", "view"), "event_shares": (0.03, 0.04, 0.07, 0.86)}
    assert verdicts(**kinds)["event_shares"] == (0.04, "warn")
    assert verdicts(event_kinds=("purchase",), event_shares=(1.0,))["event_shares"] == (1.0, "fail")
    (check,) = (
        c for c in check_figures(BASELINE, replace(BASELINE, **kinds), ExpectationConfig()) if c.name == "event_shares"
    )
    assert check.found == "transaction 3.00%, wishlist 4.00%, addtocart 7.00%, view 86.00%"


def test_a_reason_with_more_invalid_rows_is_reported_even_if_their_total_is_unchanged():
    rejects = {"reject_reasons": ("unknown event kind", "empty id"), "reject_shares": (0.0005, 0.0005)}
    after = replace(BASELINE, **rejects)
    checks = {check.name: check for check in check_figures(BASELINE, after, ExpectationConfig())}
    # empty ids decrease from .001 to .0005, unknown kinds increase from 0 to .0005: the sum is .001 as before
    assert checks["rejects"].verdict == "ok"
    assert (checks["domains"].distance, checks["domains"].verdict) == (pytest.approx(0.0005), "warn")
    assert checks["domains"].baseline == "0.00% (unknown event kind)"
    assert checks["domains"].found == "0.05%"
    assert verdicts(reject_reasons=("invalid UTF-8",), reject_shares=(0.02,))["domains"] == (0.02, "fail"), (
        "a new reason"
    )
    assert verdicts(reject_reasons=(), reject_shares=())["domains"] == (0.0, "ok")


def test_a_limit_of_none_accepts_any_distance():
    config = ExpectationConfig(rows=Limit(warn=None, fail=None))
    (rows, *_) = check_figures(BASELINE, replace(BASELINE, rows=1), config)
    assert rows.verdict == "ok"


def catalogue(*rows: tuple[str, float | None, int]) -> pa.Table:
    """Items with their price and views."""
    ids, prices, views = zip(*rows, strict=True)
    return pa.table(
        {
            "item_id": ids,
            "price": pa.array(prices, pa.float32()),
            "event_counts": [[count, 0, 0] for count in views],
        }
    )


def test_popularity_is_compared_item_by_item():
    before = catalogue(("a", None, 6), ("b", None, 4))
    # shares .6, .4, 0 and 0, .5, .5: half of .6 + .1 + .5
    assert popularity_distance(before, catalogue(("c", None, 1), ("b", None, 1))) == pytest.approx(0.6)
    assert popularity_distance(before, catalogue(("b", None, 40), ("a", None, 60))) == pytest.approx(0.0)


def test_prices_outside_the_baselines_range_are_counted():
    after = catalogue(("a", 0.5, 1), ("b", 50.0, 1), ("c", 100.0, 1), ("d", None, 1))
    checks = {check.name: check for check in check_items(BASELINE, after, after, ExpectationConfig())}
    # one of three prices, .5, is outside 1 to 100
    assert checks["prices"].distance == pytest.approx(1 / 3)
    assert (checks["prices"].verdict, checks["popularity"].verdict) == ("fail", "ok")
    unpriced = replace(BASELINE, min_price=None, max_price=None)
    checks = {check.name: check for check in check_items(unpriced, after, after, ExpectationConfig())}
    assert checks["prices"].distance == 0


def test_an_error_about_several_settings_of_a_group_names_the_group():
    with pytest.raises(ValueError, match=r"^split: give both --validation-from and --test-from, or neither$"):
        apply_settings(PrepareConfig(events="a.csv"), ["split.validation_from_ms=5"])


def test_a_negative_limit_is_an_error_that_names_its_setting():
    with pytest.raises(ValueError, match=r"expectations\.prices\.warn must be at least 0, or none, got -0\.1"):
        apply_settings(PrepareConfig(events="a.csv"), ["expectations.prices.warn=-0.1"])


def test_a_baseline_that_is_no_dataset_is_an_error_before_anything_is_read(tmp_path):
    events = write_lines(tmp_path / "events.csv", "timestamp,visitorid,event,itemid", "bad")
    with pytest.raises(ContractError, match="not a prepared dataset"):
        prepare(PrepareConfig(events=events), str(tmp_path / "dataset"), baseline=str(tmp_path / "none"))


@pytest.mark.integration
def test_prepare_warns_or_fails_according_to_the_limits(tmp_path, caplog):
    header, root = "timestamp,visitorid,event,itemid", str(tmp_path / "first")
    lines = [event(n / 4, f"v{n % 3}", f"i{n % 4}").removesuffix(",") for n in range(60)]
    prepare(PrepareConfig(events=write_lines(tmp_path / "first.csv", header, *lines)), root)
    assert read_expectations(root).event_shares == (1.0, 0.0, 0.0)

    # the same rows; the comparison is not in the manifest
    again = prepare(PrepareConfig(events=str(tmp_path / "first.csv")), str(tmp_path / "again"), baseline=root)
    assert set(again["compared"].values()) == {"ok"}
    comparison = json.loads(Path(DatasetLayout(str(tmp_path / "again")).comparison).read_text())
    assert [check["distance"] for check in comparison["checks"]] == [0] * 8

    # 40 of 60 rows, without the last days
    fewer = PrepareConfig(events=write_lines(tmp_path / "fewer.csv", header, *lines[:40]))
    summary = prepare(fewer, str(tmp_path / "fewer"), baseline=root)
    assert (summary["compared"]["rows"], summary["compared"]["days_behind"]) == ("warn", "warn")
    expected = (
        "is 0.3333, above the limit of 0.25 (now 40, before 60); check the input, or raise expectations.rows.warn"
    )
    assert f"from the baseline in rows: the relative change of the number of event rows {expected}" in caplog.text
    assert "Outside the limits: rows, days_behind" in Path(write_report(str(tmp_path / "fewer"))).read_text()

    # above `fail`, nothing is published
    strict = replace(fewer, expectations=ExpectationConfig(rows=Limit(warn=0.1, fail=0.3)))
    with pytest.raises(
        ValueError, match=r"in rows: .*now 40, before 60.*raise expectations.rows.fail or omit --baseline"
    ):
        prepare(strict, str(tmp_path / "strict"), baseline=root)
    assert not (tmp_path / "strict").exists()
