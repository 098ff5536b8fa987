"""Dataclasses for report pages, sections and parts, rendered as one HTML file without scripts or remote files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template

Cell = str | int | float | None
"""Content of a table cell. Numbers are right-aligned, and None is shown as a dash."""


@dataclass(frozen=True)
class Table:
    """Rows of cells below a header."""

    header: Sequence[str]
    """Column titles."""
    rows: Sequence[Sequence[Cell]]
    """Cells by row."""
    marked: frozenset[tuple[int, int]] = frozenset()
    """(row, column) of highlighted cells."""


@dataclass(frozen=True)
class Picture:
    """An SVG with its description and a table of its numbers."""

    title: str
    """Heading above the picture."""
    summary: str
    """Sentence that describes the picture; also its text alternative."""
    svg: str
    """The picture."""
    table: Table
    """The numbers that were drawn."""
    is_wide: bool = False
    """Whether the picture takes the full width of the page."""


@dataclass(frozen=True)
class Facts:
    """A part of a report: a list of names and their values, such as counts."""

    values: Sequence[tuple[str, Cell]]
    """Pairs of name and value."""


@dataclass(frozen=True)
class Note:
    """A short text, for example in place of a picture that has no data."""

    text: str
    """The sentence."""
    is_warning: bool = False
    """Whether the note is highlighted."""


@dataclass(frozen=True)
class Block:
    """A part of a report: a table without a picture."""

    title: str
    """Heading above the table."""
    table: Table
    """The table."""
    is_folded: bool = False
    """Whether the table is hidden until the reader opens it."""


@dataclass(frozen=True)
class Columns:
    """Tables of a report, side by side if the page is wide enough."""

    blocks: Sequence[Block]
    """The blocks, from left to right."""


_LONGEST_LINE = 40  # characters; longer cells are wrapped

Part = Picture | Facts | Note | Block | Columns


@dataclass(frozen=True)
class Section:
    """A section of a page: parts below a heading."""

    title: str
    """The heading."""
    parts: Sequence[Part]
    """The parts, in order."""


@dataclass(frozen=True)
class Page:
    """A page of a report: sections below a title."""

    key: str
    """Identifies the page within its file."""
    title: str
    """Title of the page and of its tab."""
    subtitle: str
    """A line below the title."""
    sections: Sequence[Section]
    """The sections, in order."""


@dataclass(frozen=True)
class DrawnPage:
    """A page rendered as HTML."""

    key: str
    """Identifies the page within its file, as `Page.key`."""
    title: str
    """Title of the page, as `Page.title`."""
    html: str
    """The rendered page."""


def draw_page(page: Page) -> DrawnPage:
    """Renders one page, without the document around it."""
    return DrawnPage(page.key, page.title, _page(page))


def render(pages: Sequence[Page | DrawnPage], *, title: str, shown: str) -> str:
    """Renders one HTML document with a tab per page.

    Args:
      pages: the pages, in the order of their tabs.
      title: title of the document.
      shown: key of the page that is open first.

    Raises:
      ValueError: no page has the key `shown`.
    """
    if shown not in [page.key for page in pages]:
        raise ValueError(f"there is no page {shown}; the pages are {', '.join(page.key for page in pages)}")
    drawn = [page if isinstance(page, DrawnPage) else draw_page(page) for page in pages]
    files = resources.files("common.report")
    tabs = "".join(
        f'<input type="radio" name="page" id="show-{page.key}"{" checked" if page.key == shown else ""}>'
        f'<label for="show-{page.key}">{escape(page.title)}</label>'
        for page in pages
    )
    shows = ",".join(f"body:has(#show-{page.key}:checked) #{page.key}" for page in pages)
    return Template(files.joinpath("report.html").read_text("utf-8")).substitute(
        title=escape(title),
        style=files.joinpath("report.css").read_text("utf-8"),
        shows=shows,
        tabs=tabs,
        pages="\n".join(page.html for page in drawn),
    )


def format_cell(cell: Cell) -> str:
    """Formats a table cell as text, such as `1,234`, `0.9671`, `1.23e-05`, or `–` for None."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"


def share(part: float, whole: float) -> str:
    """Formats a share as `12.3%`, or as a dash if the whole is 0."""
    return f"{part / whole:.1%}" if whole else "–"


def _page(page: Page) -> str:
    names = [f"{page.key}-{index}" for index in range(len(page.sections))]
    links = "".join(
        f'<li><a href="#{name}">{escape(section.title)}</a></li>'
        for name, section in zip(names, page.sections, strict=True)
    )
    sections = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(section.title)}</h2>'
        f'<div class="parts">{_parts(section.parts)}</div></section>'
        for name, section in zip(names, page.sections, strict=True)
    )
    return (
        f'<article class="page" id="{page.key}"><h1>{escape(page.title)}</h1><p class="subtitle">'
        f'{escape(page.subtitle)}</p><ul class="contents">{links}</ul>\n{sections}</article>'
    )


def _parts(parts: Iterable[Part]) -> str:
    return "\n".join(_part(part) for part in parts)


def _part(part: Part) -> str:
    match part:
        case Picture():
            return _picture(part)
        case Facts():
            pairs = "".join(
                f"<div><dt>{escape(name)}</dt><dd>{escape(format_cell(value))}</dd></div>"
                for name, value in part.values
            )
            return f'<dl class="facts">{pairs}</dl>'
        case Note():
            return f'<p class="note{" warning" if part.is_warning else ""}">{escape(part.text)}</p>'
        case Block():
            return f'<div class="block">{_block(part)}</div>'
        case Columns():
            return f'<div class="columns">{"".join(f"<div>{_block(block)}</div>" for block in part.blocks)}</div>'


def _picture(picture: Picture) -> str:
    """Renders a picture as HTML. Its box can have the keyboard focus, so that keys scroll it."""
    label = escape(picture.summary, quote=True)
    svg = picture.svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return (
        f'<figure class="picture{" wide" if picture.is_wide else ""}"><figcaption>{escape(picture.title)}</figcaption>'
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(picture.title, quote=True)}">{svg}</div>'
        f'<p class="summary">{escape(picture.summary)}</p>{_folded("Table", picture.title, picture.table)}</figure>'
    )


def _block(block: Block) -> str:
    if block.is_folded:
        return _folded(block.title, block.title, block.table)
    return f"<h3>{escape(block.title)}</h3>{_table(block.table, block.title)}"


def _folded(summary: str, name: str, table: Table) -> str:
    return f"<details><summary>{escape(summary)}</summary>{_table(table, name)}</details>"


def _table(table: Table, name: str) -> str:
    is_number = [_is_number(cell) for cell in table.rows[0]] if table.rows else [False] * len(table.header)
    head = "".join(
        f'<th scope="col"{_classes(["number"] if right else [])}>{escape(cell)}</th>'
        for cell, right in zip(table.header, is_number, strict=True)
    )
    rows = "".join(
        f"<tr>{''.join(_cell(cell, is_marked=(row, column) in table.marked) for column, cell in enumerate(cells))}</tr>"
        for row, cells in enumerate(table.rows)
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="Table: {escape(name, quote=True)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: Cell, *, is_marked: bool) -> str:
    text = format_cell(cell)
    is_long = isinstance(cell, str) and len(cell) > _LONGEST_LINE
    names = [name for name, holds in (("number", _is_number(cell)), ("long", is_long), ("marked", is_marked)) if holds]
    return f"<td{_classes(names)}>{escape(text)}</td>"


def _classes(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def _is_number(cell: Cell) -> bool:
    return not isinstance(cell, str) or cell.endswith("%")
