"""Charts of the report. Each function takes numbers and returns SVG.

`key` is the name of the picture, unique in its page. `colour` is an index in `SERIES`. Lengths are in pixels.
"""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from common.report.drawing import (
    HEIGHT,
    INK,
    MUTED,
    SERIES,
    SURFACE,
    WARNING,
    WIDE,
    WIDTH,
    compact,
    draw,
    fit,
    open_axes,
    shorten,
    text_width,
)
from common.report.treemap import Box, squarify

_COMPACT = FuncFormatter(lambda value, _: compact(value))
_MAX_DAYS = 800
_SCALE_STEPS = 20


def bars(
    key: str, labels: Sequence[str], values: Sequence[float], *, notes: Sequence[str] = (), colour: int = 0
) -> str:
    """Draws horizontal bars, the first on top. Each shows its note or, without `notes`, its value."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        drawn = axes.barh(range(len(values)), values, color=SERIES[colour], height=0.7)
        axes.bar_label(drawn, list(notes) or [compact(value) for value in values], padding=4, color=INK, fontsize=11)
        axes.set_yticks(range(len(labels)), [shorten(label) for label in labels], color=INK)
        # the first on top; room for three bars keeps a single one from filling the picture
        axes.set_ylim(max(len(values), 3) - 0.5, -0.5)
        axes.set_xlim(0, max(values, default=0) * 1.25 or 1)
        axes.set_xticks([])
        open_axes(axes, grid="")
        axes.spines[["bottom"]].set_visible(False)

    return draw(paint, key=key, height=50 + 24 * max(len(values), 3))


def columns(
    key: str,
    labels: Sequence[str],
    values: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    is_log: bool = False,
    colour: int = 0,
) -> str:
    """Draws one column per value. The y axis is logarithmic if `is_log`."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.bar(range(len(values)), values, color=SERIES[colour], width=0.86)
        step = -(-len(labels) // 9)
        axes.set_xticks(range(0, len(labels), step), labels[::step])
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.6, max(len(values), 2) - 0.4))
        if is_log:
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.6)
        axes.yaxis.set_major_formatter(_COMPACT)
        axes.minorticks_off()
        open_axes(axes)

    return draw(paint, key=key)


def shares(key: str, labels: Sequence[str], values: Sequence[float]) -> str:
    """Draws a pie chart, with labels and shares in a legend."""
    total = sum(values)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        colours = [SERIES[index % len(SERIES)] for index in range(len(values))]
        wedges = axes.pie(
            values, colors=colours, startangle=90, counterclock=False, wedgeprops={"linewidth": 1, "edgecolor": SURFACE}
        ).wedges
        texts = [f"{shorten(label)} {value / total:.2%}" for label, value in zip(labels, values, strict=True)]
        figure.legend(wedges, texts, loc="outside right center")

    return draw(paint, key=key, height=max(160, 22 * len(values)))


def days(
    key: str,
    series: Sequence[tuple[str, dict[str, int]]],
    *,
    marks: Sequence[tuple[str, float]] = (),
    height: float | None = None,
) -> str:
    """Draws daily counts, one panel with its own scale per series.

    Beyond 800 days, a bin is the sum of several days.

    Args:
      key: name of the picture, unique in its page.
      series: name of each series, and its counts by ISO date; absent dates have a count of 0.
      marks: name of each vertical line, and its time in days since 1970.
      height: height of the picture in pixels; None: it grows with the number of panels.
    """
    dates = sorted({date.fromisoformat(day) for _, counts in series for day in counts})
    first, size = dates[0], -(-((dates[-1] - dates[0]).days + 1) // _MAX_DAYS)
    bins = ((dates[-1] - first).days) // size + 1
    edges = [date2num(first + timedelta(days=size * index)) for index in range(bins + 1)]

    def paint(figure: Figure) -> None:
        panels = np.atleast_1d(figure.subplots(len(series), sharex=True))
        for index, (axes, (name, counts)) in enumerate(zip(panels, series, strict=True)):
            heights = np.zeros(bins + 1)
            for day, count in counts.items():
                heights[(date.fromisoformat(day) - first).days // size] += count
            heights[-1] = heights[-2]
            axes.fill_between(edges, heights, step="post", color=SERIES[index % len(SERIES)], linewidth=0)
            axes.set(xlim=(edges[0], edges[-1]), ylim=(0, max(heights.max() * 1.1, 1)))
            title = shorten(name) if size == 1 else f"{shorten(name)}, summed over {size} days"
            axes.set_title(title, loc="left", fontsize=11, color=INK)
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.yaxis.set_major_formatter(_COMPACT)
            for _, moment in marks:
                axes.axvline(moment, color=WARNING, linewidth=1.5, linestyle="--")
            open_axes(axes)
        _name_marks(panels[0], marks, edges[0], edges[-1])
        locator = AutoDateLocator(maxticks=10)
        panels[-1].xaxis.set_major_locator(locator)
        panels[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))
        panels[-1].tick_params(axis="x", pad=8)  # keeps a date at the edge below the 0 of the other axis

    return draw(paint, key=key, width=WIDE, height=height or max(360, 100 * len(series)))


def _name_marks(axes: Axes, marks: Sequence[tuple[str, float]], begin: float, end: float) -> None:
    """Writes each mark's name next to the mark's vertical line, at the top, within the x limits `begin` and `end`."""
    for index, (name, moment) in enumerate(marks):
        is_last = index == len(marks) - 1
        x = min(moment, end - 0.045 * (end - begin)) if is_last else max(moment, begin + 0.09 * (end - begin))
        style = {"ha": "left" if is_last else "right", "color": WARNING, "fontsize": 10}
        axes.text(x, 1, f" {name} ", transform=axes.get_xaxis_transform(), **style)


def heat_map(
    key: str,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    matrix: Sequence[Sequence[float | None]],
    *,
    has_sign: bool = False,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> str:
    """Draws a heat map, the first row on top; stronger colours are greater magnitudes.

    Args:
      key: name of the picture, unique in its page.
      row_labels: label of each row.
      column_labels: label of each column.
      matrix: values by row and column; None: no value.
      has_sign: whether values may be negative. If so, each cell shows its value, and there is no colour scale.
      width: width of the picture in pixels.
      height: height of the picture in pixels.
    """
    greatest = max((abs(value) for row in matrix for value in row if value is not None), default=0) or 1

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot() if has_sign else _with_scale(figure, greatest)
        for row, values in enumerate(matrix):
            for column, value in enumerate(values):
                colour = SERIES[1] if (value or 0) < 0 else SERIES[0]
                strength = abs(value or 0) / greatest * (0.75 if has_sign else 1)
                axes.add_patch(Rectangle((column, row), 0.96, 0.94, facecolor=colour, alpha=strength, linewidth=0))
                if has_sign:
                    text = "–" if value is None else f"{value:z.2f}".replace("0.", ".")
                    axes.text(column + 0.48, row + 0.5, text, ha="center", va="center", fontsize=9)
        axes.set(xlim=(0, len(column_labels)), ylim=(len(row_labels), 0))
        step = 1 if has_sign else -(-len(column_labels) // 12)
        rotation = 45 if has_sign else 0
        axes.set_xticks(
            np.arange(0, len(column_labels), step) + 0.5,
            column_labels[::step],
            rotation=rotation,
            ha="right" if rotation else "center",
            rotation_mode="anchor",
        )
        axes.set_yticks(np.arange(len(row_labels)) + 0.5, row_labels)
        open_axes(axes, grid="")
        axes.spines[:].set_visible(False)

    return draw(paint, key=key, width=width, height=height)


def _with_scale(figure: Figure, greatest: float) -> Axes:
    """Draws a colour scale from 0 to `greatest`; returns the axes for the chart."""
    axes, scale = figure.subplots(1, 2, width_ratios=(30, 1))
    for index in range(_SCALE_STEPS):
        strength = (index + 0.5) / _SCALE_STEPS
        cell = Rectangle((0, index), 1, 1, facecolor=SERIES[0], alpha=strength, linewidth=0)
        scale.add_patch(cell)
    scale.set(xlim=(0, 1), ylim=(0, _SCALE_STEPS), xticks=[])
    scale.set_yticks([0, _SCALE_STEPS / 2, _SCALE_STEPS], [compact(greatest * part) for part in (0, 0.5, 1)])
    scale.yaxis.tick_right()
    open_axes(scale, grid="")
    scale.spines[:].set_visible(False)
    return axes


def curve(key: str, x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str, note: str) -> str:
    """Draws a Lorenz curve, with `note` in a corner."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        axes.fill_between(x, x, y, color=SERIES[0], alpha=0.25, linewidth=0)
        axes.plot(x, y, color=SERIES[0], linewidth=2)
        axes.text(0.05, 0.9, note, color=INK)
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=x_label, ylabel=y_label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        open_axes(axes)
        axes.tick_params(pad=7)  # keeps the 0% labels of both axes apart

    return draw(paint, key=key)


def treemap(key: str, groups: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """Draws a treemap. Areas are proportional to values, and each group has a colour.

    Args:
      key: name of the picture, unique in its page.
      groups: name of each group, and its parts as pairs of name and value. Groups and parts are in descending order.
    """

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDE), ylim=(0, _TREEMAP_HEIGHT))
        axes.set_axis_off()
        sums = [sum(value for _, value in parts) for _, parts in groups]
        outer = squarify(sums, Box(0, 0, WIDE, _TREEMAP_HEIGHT))
        for index, ((name, parts), box) in enumerate(zip(groups, outer, strict=True)):
            inner = squarify([value for _, value in parts], box)
            heading = (
                fit(name, box.width - 12, 12) if box.height > 34 else ""
            )  # bold text of size 11 is about as wide as size 12
            room = Box(box.x, box.y + box.height - 22, 12 + text_width(heading, 12) if heading else 0, 22)
            for (part, _), cell in zip(parts, inner, strict=True):
                _paint_cell(axes, cell, part, index, taken=room)
            axes.add_patch(Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor=SURFACE, linewidth=3))
            axes.text(box.x + 6, box.y + box.height - 6, heading, va="top", fontsize=11, fontweight="bold")

    return draw(paint, key=key, width=WIDE, height=_TREEMAP_HEIGHT)


_TREEMAP_HEIGHT = 420


def _paint_cell(axes: Axes, cell: Box, name: str, index: int, *, taken: Box) -> None:
    """Draws one cell of a treemap, with `name` in it if there is room.

    `index` is the number of the cell's group, for the colour; `taken` is the box of the group's heading.
    """
    style = {"facecolor": SERIES[index % len(SERIES)], "alpha": 0.4, "edgecolor": SURFACE, "linewidth": 1}
    axes.add_patch(Rectangle((cell.x, cell.y), cell.width, cell.height, **style))
    text = fit(name, cell.width - 6, 9)
    middle = cell.x + cell.width / 2
    is_taken = cell.y + 17 > taken.y and middle - text_width(text, 9) / 2 < taken.x + taken.width
    if cell.height > 18 and not is_taken:
        axes.text(middle, cell.y + 5, text, ha="center", va="bottom", fontsize=9)


def stacks(key: str, labels: Sequence[str], series: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Draws one horizontal bar per label, the first on top. The parts of a bar add up to 100%.

    Args:
      key: name of the picture, unique in its page.
      labels: label of each bar.
      series: name of each part, and its count in each bar.
    """
    totals = np.maximum(np.sum([values for _, values in series], axis=0), 1)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        left = np.zeros(len(labels))
        for index, (name, values) in enumerate(series):
            part = np.asarray(values) / totals
            axes.barh(range(len(labels)), part, left=left, height=0.6, color=SERIES[index], label=name)
            for row, value in enumerate(part):
                if value > 0.08:
                    axes.text(left[row] + value / 2, row, f"{value:.0%}", ha="center", va="center", color=SURFACE)
            left += part
        axes.set_yticks(range(len(labels)), labels, color=INK)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), xticks=[])
        open_axes(axes, grid="")
        axes.spines[:].set_visible(False)
        figure.legend(loc="outside upper left", ncols=len(series), fontsize=10)

    return draw(paint, key=key, height=70 + 34 * max(len(labels), 2))
