"""Progress on a terminal: bars with rate and time left, and a log whose lines stand above them; elsewhere no bar."""

import logging
import sys

from tqdm import tqdm


def make_bar(total: int, unit: str, *, title: str | None = None, initial: int = 0, is_shown: bool = True) -> tqdm:
    """A bar to `update` and to close, also as a context; nothing is seen of it where standard error is no terminal.

    Args:
      total: how much there is to do.
      unit: of what, in the plural; B: bytes.
      title: what is done.
      initial: how much is done already.
      is_shown: false in a process that is not the one to tell.
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
    """Writes the log to standard error, above the bars that are open."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=self.stream)
