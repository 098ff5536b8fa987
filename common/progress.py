"""Progress bars with rate and remaining time on a terminal, and a log handler that writes above them."""

import logging
import sys

from tqdm import tqdm

from common.streams import discard
from common.text import printable


def make_bar(total: int, unit: str, *, title: str | None = None, initial: int = 0, is_shown: bool = True) -> tqdm:
    """Makes a progress bar (a context manager), which is drawn only on a terminal.

    Args:
      total, initial: amount of work, and amount already done.
      unit: unit of the amount, in the plural; `B` for bytes.
      title: text before the bar.
    """
    return tqdm(
        total=total,
        desc=title,
        initial=initial,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not (is_shown and sys.stderr.isatty()),
        leave=False,
    )


class LogHandler(logging.StreamHandler):
    """Writes the log to standard error, above open progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(printable(self.format(record)), file=self.stream)
        except OSError:  # a full disk or a closed terminal must not stop the job
            discard(self.stream)
