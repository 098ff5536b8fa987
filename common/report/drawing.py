"""Renders Matplotlib figures as SVG in the page's colours, so that one picture suits light mode, dark mode and print.

Text is stored as text, not as outlines. Thus files are small, and text is searchable and has the page's font. Lengths
are in pixels of the page.
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

INK, MUTED, LINE, SURFACE, WARNING, CARD = (f"#0a0b0{index}" for index in range(6))
SERIES = tuple(f"#0a0c0{index}" for index in range(8))
"""Placeholder colours, which `draw` replaces by the colours of the page."""

WIDTH, HEIGHT = 430, 280
WIDE = 1000
LONGEST_LABEL = 22
_SHORTEST_LABEL = 8

_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", SURFACE: "surface", WARNING: "warning", CARD: "raised"} | {
    colour: f"series-{index}" for index, colour in enumerate(SERIES)
}
_COLOUR = re.compile(
    rf"({'|'.join(_VARIABLES)})(?=[^<>]*>)"
)  # only within a tag: an id in the text may look like a colour
_GROUP_ID = re.compile(r'<g id="[^"]*"')
_SIZE = re.compile(r'width="[\d.]+pt" height="[\d.]+pt"')
_HEAD = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # ids may contain dollar signs
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
    """Renders a figure as SVG, reproducibly. `key` must be unique in the page; sizes are in pixels."""
    # Matplotlib's SVG has 72 units per inch
    with rc_context({**_STYLE, "svg.hashsalt": f"picture {key}"}), warnings.catch_warnings():
        # glyphs missing in DejaVu, which the page's font may have, and empty axes
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        # Figure.savefig would draw twice
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Type", "Format")))
    text = buffer.getvalue()
    text = _HEAD.sub("", text[text.index("<svg") :])
    text = _GROUP_ID.sub("<g", text)
    text = _SIZE.sub(f'style="max-width: {width * 1.25:.0f}px"', text, count=1)
    return _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", text)


def shorten(text: str, longest: int = LONGEST_LABEL) -> str:
    """Shortens a label to `longest` characters, with `…` in the middle.

    Replaces unprintable characters by U+FFFD.
    """
    printable = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    if len(printable) <= longest:
        return printable
    head = (longest - 1) * 2 // 3
    return f"{printable[:head]}…{printable[head + 1 - longest :]}"


def fit(text: str, room: float, size: float) -> str:
    """Shortens a text to `room` pixels at font size `size`, and to at most 22 characters.

    Returns '' if there is no room for eight characters.
    """
    longest = min(len(text), LONGEST_LABEL)
    while longest >= min(len(text), _SHORTEST_LABEL):
        shown = shorten(text, longest)
        if text_width(shown, size) <= room:
            return shown
        longest -= 1
    return ""


def text_width(text: str, size: float) -> float:
    """Returns the width of a text in pixels at font size `size`."""
    font = FontProperties(family="DejaVu Sans", size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def open_axes(axes: Axes, *, grid: str = "y") -> None:
    """Removes the tick marks of axes and adds a grid (`x`, `y`, `both`, or '' for none)."""
    axes.tick_params(length=0)
    if grid:
        axes.grid(axis=grid)


def compact(number: float) -> str:
    """Formats a number for a label: `2.66M`, `22.5k`, `850`."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if suffix == 'k' else limit):.3g}{suffix}"
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:.3g}"
