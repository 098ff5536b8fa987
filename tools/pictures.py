"""Renders README's picture of a report: some figures of its pages, drawn by Chromium.

Needs Chromium and `playwright`, as the tests of the pages do.
"""

import argparse
import sys
from pathlib import Path

from tests.browser import CHROMIUM, open_page

PICTURE = Path(__file__).parent.parent / "docs" / "report.png"
WIDTH = 1280

SHOWN = (
    ("data", "Events by kind"),
    ("data", "Concentration of events on items (Lorenz curve)"),
    ("data", "From view to transaction, visitor-item pairs"),
    ("data", "Events per day, by kind"),
    ("evaluation", "Systems by metric"),
)
"""Page and title of each figure; the first figure if several share a title."""

_LEAVE_ONLY = """shown => {
  const pictures = shown.map(([page, title]) => {
    const figures = [...document.querySelectorAll(`#${page} figure`)];
    const found = figures.find(figure => figure.querySelector("figcaption").textContent === title);
    if (!found) throw new Error(`the page ${page} has no picture ${title}`);
    found.querySelector("details").remove();
    return found;
  });
  const parts = document.createElement("div");
  parts.className = "parts";
  parts.append(...pictures);
  document.querySelector("main").replaceChildren(parts);
  document.querySelector("main").style.padding = "1rem";
  document.querySelector("header").remove();
}"""


def main() -> None:
    """Makes README's picture from the report of the run at `--run`."""
    parser = argparse.ArgumentParser(prog="python -m tools.pictures", description=__doc__)
    parser.add_argument("--run", default="demo/runs/auto", help="a run with a report (default: demo/runs/auto)")
    given = parser.parse_args()
    report = Path(given.run, "report.html").resolve()
    if not report.exists():
        sys.exit(f"{report} does not exist; create it with `make demo`")
    if CHROMIUM is None:
        sys.exit("Chromium is not installed; install it with `apt-get install chromium`")
    draw(report, PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


def draw(report: Path, picture: Path) -> None:
    """Makes a PNG file of the report's charts that `SHOWN` lists."""
    with open_page(report.as_uri(), width=WIDTH) as opened:
        opened.page.evaluate(_LEAVE_ONLY, SHOWN)
        opened.page.locator("main").screenshot(path=picture)


if __name__ == "__main__":
    main()
