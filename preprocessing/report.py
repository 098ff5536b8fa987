"""`report.html` of a dataset: its statistics as one page."""

import json
import logging

from contract import storage
from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from contract.report.data.page import data_page
from contract.report.page import render

log = logging.getLogger(__name__)


def write_report(root: str) -> str:
    """Draws the report of the dataset at `root`, and returns where it lies.

    Raises:
      ContractError: there is no dataset.
    """
    layout = DatasetLayout(root)
    manifest = read_manifest(root)
    statistics = json.loads(storage.read_bytes(layout.statistics))
    name = root.rstrip("/").rpartition("/")[2]
    comparison = json.loads(storage.read_bytes(layout.comparison)) if storage.exists(layout.comparison) else None
    html = render([data_page(name, statistics, manifest, comparison)], title=f"Cartwheel: {name}", shown="data")
    storage.write_bytes(layout.report, html.encode())
    return layout.report


def try_to_write_report(root: str) -> str | None:
    """The same after a job whose result must not be lost over a picture: what goes wrong is logged, and None."""
    try:
        return write_report(root)
    except Exception:
        log.warning("the dataset is complete, but its report could not be drawn", exc_info=True)
        return None
