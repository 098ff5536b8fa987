"""Matplotlib figures to SVG that takes its colours from the page, so that one picture serves light, dark and paper.

Text stays text: it is small, searchable, and set in the page's font. Lengths are in units of the page's pixels.
"""

import io
import re
import warnings
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

INK, MUTED, LINE, SURFACE, WARNING, CARD = (f"#0a0b0{place}" for place in range(6))
SERIES = tuple(f"#0a0c0{place}" for place in range(8))
"""Colours to draw with: they stand for the page's own, by which they are replaced."""

WIDTH, HEIGHT = 430, 280
WIDE = 1000
LONGEST_LABEL = 22
_SHORTEST_LABEL = 8

_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", SURFACE: "surface", WARNING: "warning", CARD: "raised"} | {
    colour: f"series-{place}" for place, colour in enumerate(SERIES)
}
_COLOUR = re.compile(rf"({'|'.join(_VARIABLES)})(?=[^<>]*>)")  # within a tag: an id in a text may read like one
_GROUP_ID = re.compile(r'<g id="[^"]*"')
_SIZE = re.compile(r'width="[\d.]+pt" height="[\d.]+pt"')
_HEAD = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # an id may hold dollars
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


def draw(paint: Callable[[Figure], None], *, key: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    """The SVG of what `paint` puts on an empty figure; the same `key` and picture give the same text.

    Args:
      paint: adds axes and what is in them.
      key: of its own for each picture of a page: it keeps the pictures' inner names apart.
      width, height: in units.
    """
    # 72 units an inch, matplotlib's own for SVG
    with rc_context({**_STYLE, "svg.hashsalt": f"picture {key}"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that DejaVu lacks and the page's font may have; of empty axes
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        # not by Figure.savefig, which would draw twice
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Type", "Format")))
    text = buffer.getvalue()
    text = _HEAD.sub("", text[text.index("<svg") :])
    text = _GROUP_ID.sub("<g", text)
    text = _SIZE.sub(f'style="max-width: {width * 1.25:.0f}px"', text, count=1)
    return _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", text)


def shorten(text: str, longest: int = LONGEST_LABEL) -> str:
    """A label that fits: the middle of a long id left out, what cannot be printed made visible."""
    printable = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    if len(printable) <= longest:
        return printable
    head = (longest - 1) * 2 // 3
    return f"{printable[:head]}…{printable[head + 1 - longest :]}"


def fit(text: str, room: float, size: float) -> str:
    """As much of a text as `shorten` leaves in so many units, '' where that would be less than eight letters of it."""
    longest = min(len(text), LONGEST_LABEL)
    while longest >= min(len(text), _SHORTEST_LABEL):
        shown = shorten(text, longest)
        if text_width(shown, size) <= room:
            return shown
        longest -= 1
    return ""


def text_width(text: str, size: float) -> float:
    """How wide a text is, in units."""
    font = FontProperties(family="DejaVu Sans", size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def open_axes(axes: Axes, *, grid: str = "y") -> None:
    """A light look: a grid along one axis (`x`, `y`, or none), no ticks beside the labels."""
    axes.tick_params(length=0)
    if grid:
        axes.grid(axis=grid)


def compact(number: float) -> str:
    """`2.66M`, `22.5k`, `850`: a number beside a mark."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if suffix == 'k' else limit):.3g}{suffix}"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:.3g}"
