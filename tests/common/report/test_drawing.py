import re

import pytest

from common.report import charts, run_charts
from common.report.drawing import INK, SERIES, compact, fit, shorten


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9458, "9,458"), (74159, "74.2k"), (2_664_312, "2.66M"), (3e9, "3G"), (0.0321, "0.0321")],
)
def test_numbers_in_labels_are_short(number, text):
    assert compact(number) == text


def test_a_long_id_keeps_its_ends():
    assert shorten("short") == "short"
    # 10 letters: the first 6 (9 * 2 // 3), the ellipsis, the last 3
    assert shorten("abcdefghijklmnop", 10) == "abcdef…nop"
    assert shorten("a\x00b\nc") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_a_text_is_shortened_by_the_width_of_its_letters():
    # in DejaVu Sans at 12 pixels, an i is 3.3 pixels wide, a W 11.9
    assert fit("i" * 12, 50, 12) == "i" * 12
    assert fit("W" * 12, 50, 12) == ""
    assert fit("W" * 12, 120, 12) == shorten("W" * 12, 10), "nine of them, 107, and an ellipsis of 12"
    assert fit("ab", 50, 12) == "ab"


def test_a_picture_is_reproducible_and_uses_the_colours_of_the_page():
    labels = ["<b>&", "$x^2$", "Ж日"]
    first, second = (charts.bars("key", labels, [3, 2, 1]) for _ in range(2))
    assert first == second
    assert "&lt;b&gt;&amp;" in first
    assert "$x^2$" in first, "no mathematics is read into ids"
    assert "var(--series-0)" in first
    assert not re.search(r"#[0-9a-f]{6}", first), "a colour that dark mode cannot change"


def test_an_id_that_looks_like_a_colour_is_kept():
    svg = charts.bars("key", [SERIES[0]], [1], notes=[INK])
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert texts == [SERIES[0], INK]
    assert "var(--series-0)" in svg
    assert "var(--ink)" in svg


def test_two_pictures_share_no_ids():
    ids = [set(re.findall(r'id="([^"]+)"', charts.bars(key, ["a"], [1]))) for key in ("one", "two")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_time_line_of_one_day_is_drawn():
    assert "<path" in charts.days("day", [("views", {"2015-05-03": 7})], marks=[("test", 16558.5)])


def test_a_time_line_of_many_years_sums_days():
    # 2015-01-01 to 2035-01-01 are 7306 days, both included: at most 800 bins need 10 days each
    svg = charts.days("years", [("views", {"2015-01-01": 7, "2035-01-01": 1})])
    assert "views, summed over 10 days" in svg
    assert len(svg) < 100_000


def test_no_name_covers_the_heading_of_a_group():
    # 300 equal cells in columns of 11, each 38 high and 37 wide: the heading, 22 high and 73 wide, reaches to where
    # the names of the two cells below it would be, 17 high
    texts = re.findall(r">([^<>]+)</text>", charts.treemap("map", [("one group", [("x", 1.0)] * 300)]))
    assert (texts.count("x"), texts.count("one group")) == (298, 1)


def test_the_scale_of_a_curve_at_zero_starts_at_zero():
    svg = run_charts.lines("zero", [("ndcg@20", [5, 10], [0.0, 0.0])], x_label="step", y_label="ndcg@20")
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert "0" in texts
    assert not any(text.startswith(("-", "\N{MINUS SIGN}")) for text in texts)
    assert [text for text in texts if "." in text and not text.startswith("0.0")] == [], "steps are whole"


def test_equal_values_and_no_values_are_drawn():
    assert "<svg" in charts.heat_map("flat", ["a"], ["b"], [[None]], has_sign=True)
    assert "<svg" in charts.bars("zero", ["a"], [0])
    assert "<svg" in charts.stacks("none", ["test"], [("known", [0]), ("new", [0])])
