import pytest

from common.report.page import Block, Facts, Note, Page, Picture, Section, Table, format_cell, render, share

TABLE = Table(["item", "events"], [["<i>1</i>", 1234], ["b", None]])
PICTURE = Picture("Items & more", 'First is "a"', '<svg viewBox="0 0 1 1"></svg>', TABLE)


def page(key: str = "data", *parts) -> Page:
    return Page(key=key, title=key.title(), subtitle="of a shop", sections=[Section("Items", parts)])


@pytest.mark.parametrize(
    ("cell", "text"), [(None, "–"), (1234, "1,234"), (0.96714, "0.9671"), (12345.6, "12,346"), ("12", "12")]
)
def test_cells_are_formatted_for_reading(cell, text):
    assert format_cell(cell) == text


def test_a_share_of_nothing_is_a_dash():
    assert (share(1, 8), share(0, 0)) == ("12.5%", "–")


def test_a_picture_has_a_text_alternative_and_a_table():
    html = render([page("data", PICTURE)], title="A < B", shown="data")
    assert 'role="img" aria-label="First is &quot;a&quot;"' in html
    assert "<details><summary>Table</summary>" in html
    assert "<td>&lt;i&gt;1&lt;/i&gt;</td>" in html
    assert '<td class="number">1,234</td>' in html
    assert "A &lt; B" in html
    assert "<script" not in html


def test_every_kind_of_part_is_shown():
    parts = [Facts([("rows", 7)]), Note("none", is_warning=True), Block("Inputs", TABLE), Block("More", TABLE, True)]
    html = render([page("data", *parts)], title="T", shown="data")
    assert "<dt>rows</dt><dd>7</dd>" in html
    assert 'class="note warning"' in html
    assert "<h3>Inputs</h3>" in html
    assert "<summary>More</summary>" in html


def test_marked_cells_are_highlighted():
    html = render(
        [page("data", Block("Lists", Table(["", "a"], [["1", "x"], ["2", "y"]], frozenset([(1, 1)]))))],
        title="T",
        shown="data",
    )
    assert "<td>x</td>" in html
    assert '<td class="marked">y</td>' in html


def test_one_page_is_open_first():
    html = render([page("data"), page("training")], title="T", shown="training")
    assert 'id="show-training" checked' in html
    assert html.count(" checked>") == 1


def test_an_unknown_page_is_refused():
    with pytest.raises(ValueError, match="there is no page evaluation; the pages are data"):
        render([page("data")], title="T", shown="evaluation")
