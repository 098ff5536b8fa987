"""Writes the report of a dataset, `report.html`."""

import logging

from common import storage
from common.report.page import draw_page, render
from contract.layout import DatasetLayout
from preprocessing.pages.data import read_data_page

log = logging.getLogger(__name__)


def write_report(root: str) -> str:
    """Writes the report of the dataset at `root` and returns its path.

    Raises:
      ContractError: there is no dataset.
      FileNotFoundError: the dataset has no statistics.
      KeyError: an earlier version wrote the statistics, and a value is missing.
    """
    layout, name = DatasetLayout(root), root.rstrip("/").rpartition("/")[2]
    page = draw_page(read_data_page(root))
    storage.write_bytes(layout.data_page, page.html.encode())
    storage.write_bytes(layout.report, render([page], title=f"Cartwheel: {name}", shown=page.key).encode())
    return layout.report


def try_to_write_report(root: str) -> str | None:
    """Writes the report of the dataset at `root` and returns its path. On errors, logs a warning and returns None."""
    try:
        return write_report(root)
    except Exception as error:
        log.warning(
            "the dataset at %s is complete, but its report could not be drawn (%s: %s); fix this error, then draw the "
            "report with `cartwheel report --data %s`",
            root,
            type(error).__name__,
            error,
            root,
            exc_info=not isinstance(error, ValueError | OSError),
        )
        return None
