"""`report.html` of a dataset: its statistics as one page."""

import logging

from contract import storage
from contract.layout import DatasetLayout
from contract.report.data.page import read_data_page
from contract.report.page import render

log = logging.getLogger(__name__)


def write_report(root: str) -> str:
    """Draws the report of the dataset at `root`, and returns where it lies.

    Raises:
      ContractError: there is no dataset.
    """
    path, name = DatasetLayout(root).report, root.rstrip("/").rpartition("/")[2]
    html = render([read_data_page(root)], title=f"Cartwheel: {name}", shown="data")
    storage.write_bytes(path, html.encode())
    return path


def try_to_write_report(root: str) -> str | None:
    """The same after a job whose result must not be lost over a picture: what goes wrong is logged, and None."""
    try:
        return write_report(root)
    except Exception:
        log.warning("the dataset is complete, but its report could not be drawn", exc_info=True)
        return None
