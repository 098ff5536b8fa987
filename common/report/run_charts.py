"""Charts of runs and evaluations: systems by metric, curves, the history of a run, the architecture of a model.

`key` is the name of the picture, unique in its page. Each function returns SVG.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from common.report.diagram_box import DiagramBox
from common.report.drawing import (
    CARD,
    INK,
    MUTED,
    SERIES,
    WARNING,
    WIDE,
    WIDTH,
    compact,
    draw,
    open_axes,
    shorten,
    text_width,
)

# tick values are round already; rounding would turn 0.3125 into 0.312
_COMPACT = FuncFormatter(lambda value, _: compact(value) if abs(value) >= 1e4 else f"{value:,g}")
_STEPS = [1, 2, 5, 10]
_FEW_POINTS = 30
_PANELS_PER_ROW = 4
_MARKERS = "osX^vDP"
_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))


def dots(key: str, systems: Sequence[str], panels: Sequence[tuple[str, Sequence[tuple[float, float, float]]]]) -> str:
    """Draws one panel per metric: a dot with its interval for each system. Highlights the first system.

    Args:
      key: name of the picture, unique in its page.
      systems: names of the systems, from top to bottom.
      panels: title of each panel, and (value, low, high) of each system. Without an interval, all three are equal.
    """

    def paint(figure: Figure) -> None:
        row = np.arange(len(systems))
        colours = [SERIES[0]] + [SERIES[5]] * (len(systems) - 1)
        drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.07})[0]
        for axes, (title, estimates) in zip(drawn, panels, strict=True):
            value, low, high = np.asarray(estimates).T
            axes.hlines(row, low, high, colors=colours, linewidth=2.5)
            axes.scatter(value, row, c=colours, s=42, zorder=3, clip_on=False)
            axes.set_title(title, fontsize=12, color=INK)
            axes.set_xlim(0, (np.nanmax(high) or 1) * 1.08)
            axes.set_yticks(row, [shorten(name, 26) for name in systems], color=INK)
            axes.set_ylim(len(systems) - 0.5, -0.5)
            axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
            open_axes(axes, grid="both")
            axes.spines[:].set_visible(False)

    return draw(paint, key=key, width=WIDE, height=70 + 27 * len(systems))


def lines(
    key: str,
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    mark: tuple[float, float] | None = None,
    colour: int = 0,
) -> str:
    """Draws named curves, with dots if a curve has at most 30 points.

    Args:
      key: name of the picture, unique in its page.
      series: name, x values and y values of each curve.
      x_label: label of the x axis.
      y_label: label of the y axis.
      mark: (x, y) of a point to highlight; None: no point.
      colour: index in `SERIES` of the first curve's colour.
    """

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for index, (name, x, y) in enumerate(series):
            style = "o" if len(x) <= _FEW_POINTS else None
            axes.plot(x, y, color=SERIES[colour + index], linewidth=1.8, marker=style, markersize=4, label=name)
        if mark:
            axes.scatter(*mark, s=90, facecolors="none", edgecolors=WARNING, linewidths=2, zorder=3)
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=len(series), fontsize=10)
        axes.set(xlabel=x_label, ylabel=y_label)
        if min(min(y) for _, _, y in series) >= 0:  # around equal values, the automatic scale would go below 0
            axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=_STEPS, integer=True))
        axes.xaxis.set_major_formatter(_COMPACT)
        axes.yaxis.set_major_formatter(_COMPACT)
        open_axes(axes)

    return draw(paint, key=key)


class Panel(NamedTuple):
    """One of the charts that `points` draws. The x axis shows one property of the points."""

    title: str
    """Name of the property."""
    x: Sequence[float]
    """Value of the property for each point. If the values have names, an index in `names`."""
    names: Sequence[str] = ()
    """Names of the values."""
    is_log: bool = False
    """Whether the axis is logarithmic."""


def points(
    key: str,
    panels: Sequence[Panel],
    values: Sequence[float],
    is_finished: Sequence[bool],
    *,
    y_label: str,
    best: int | None,
) -> str:
    """Draws the same points in several panels with different x axes, up to four per row.

    Args:
      key: name of the picture, unique in its page.
      panels: the panels, at least one.
      values: y of each point, such as the metric of a trial.
      is_finished: for each point, True for a dot (a finished trial), False for a cross.
      y_label: label of the y axes.
      best: index of the point to highlight; None: no point.
    """
    rows, columns = -(-len(panels) // _PANELS_PER_ROW), min(len(panels), _PANELS_PER_ROW)
    finished = np.asarray(is_finished)

    def paint(figure: Figure) -> None:
        drawn = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for axes in drawn[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(drawn, panels, strict=False):
            _paint_points(axes, panel, np.asarray(values), finished, best)
        for axes in drawn[::columns]:
            axes.set_ylabel(y_label)

    return draw(paint, key=key, width=WIDE, height=260 * rows)


def _paint_points(axes: Axes, panel: Panel, values: np.ndarray, is_finished: np.ndarray, best: int | None) -> None:
    x = np.asarray(panel.x, float)
    axes.scatter(x[is_finished], values[is_finished], color=SERIES[0], s=30)
    axes.scatter(x[~is_finished], values[~is_finished], color=MUTED, marker="x", s=30)
    if best is not None:
        axes.scatter(x[best], values[best], s=110, facecolors="none", edgecolors=WARNING, linewidths=2, zorder=3)
    _scale_setting_axis(axes, panel)
    axes.yaxis.set_major_formatter(_COMPACT)
    open_axes(axes)


def _scale_setting_axis(axes: Axes, panel: Panel) -> None:
    if panel.names:
        axes.set_xticks(range(len(panel.names)), [shorten(name, 10) for name in panel.names])
        axes.set_xlim(-0.5, len(panel.names) - 0.5)
    elif panel.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(_COMPACT)
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    axes.set_xlabel(panel.title)


def progress(
    key: str,
    seconds: Sequence[float],
    steps: Sequence[float],
    marks: Sequence[tuple[str, Sequence[tuple[float, float]]]],
) -> str:
    """Draws the completed steps of a run over time, and marks its events.

    Args:
      key: name of the picture, unique in its page.
      seconds: times in seconds since the run started.
      steps: number of completed steps at each time.
      marks: name of each kind of event, and the (seconds, steps) of its events.
    """
    points = [*seconds, *(second for _, events in marks for second, _ in events)]
    size, unit = next(((size, unit) for size, unit in _UNITS if max(points) > 3 * size), (1, "seconds"))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([second / size for second in seconds], steps, color=SERIES[0], linewidth=1.8)
        for index, (name, events) in enumerate(marks):
            x, y = zip(*events, strict=True)
            colour = SERIES[1 + index % 7]
            axes.scatter(
                [second / size for second in x],
                y,
                marker=_MARKERS[index % len(_MARKERS)],
                s=60,
                facecolors="none",  # simultaneous events stay visible
                edgecolors=colour,
                linewidths=2,
                label=name,
                zorder=3,
                clip_on=False,  # events before the first step are on the edge
            )
        figure.legend(loc="outside right center", fontsize=11)
        axes.set(xlabel=f"{unit} since the run started", ylabel="steps")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(_COMPACT)
        open_axes(axes)

    return draw(paint, key=key, width=WIDE, height=300)


def diagram(key: str, boxes: Sequence[DiagramBox]) -> str:
    """Draws the parts of a model as boxes, with arrows along the data flow.

    Boxes with the same `level` are in one column; level 0 is on the left.
    """
    levels = max(box.level for box in boxes) + 1
    width = max(170 * levels, WIDTH)
    room = 0.84 * width / levels - 8
    by_level = [[box for box in boxes if box.level == level] for level in range(levels)]
    tallest = max(map(len, by_level))
    centres = {
        box.name: (level, (row + 0.5) * tallest / len(column))
        for level, column in enumerate(by_level)
        for row, box in enumerate(column)
    }

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-0.5, levels - 0.5), ylim=(tallest, 0))
        axes.set_axis_off()
        for box in boxes:
            x, y = centres[box.name]
            for source in box.reads:
                from_x, from_y = centres[source]
                arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.2}
                axes.annotate("", (x - 0.42, y), (from_x + 0.42, from_y), arrowprops=arrow, zorder=1)
            colour = SERIES[2] if box.is_trained else SERIES[5]
            # an opaque box hides the arrows behind the translucent one
            for face, strength in ((CARD, 1.0), (colour, 0.22)):
                axes.add_patch(Rectangle((x - 0.42, y - 0.36), 0.84, 0.72, facecolor=face, alpha=strength, zorder=2))
            # bold text of size 11 is about as wide as size 12
            name_size, shape_size = _size_to_fit(box.name, room, 12) - 1, _size_to_fit(box.shape, room, 10)
            axes.text(x, y - 0.12, box.name, ha="center", va="center", fontsize=name_size, fontweight="bold")
            axes.text(x, y + 0.16, box.shape, ha="center", va="center", fontsize=shape_size, color=MUTED)

    return draw(paint, key=key, width=width, height=72 * tallest)


def _size_to_fit(text: str, room: float, size: float) -> float:
    """Returns a font size of at most `size` at which the text fits into `room` pixels."""
    return size * min(1, room / text_width(text, size))
