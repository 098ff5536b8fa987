"""`report.html` of a run: its data, its training and its evaluation, each from the files that there are."""

import json
import logging
from typing import Any, Literal

from common import storage
from common.errors import ContractError
from common.report.page import DrawnPage, Page, render
from contract.layout import DatasetLayout
from contract.manifest import dataset_checksum
from contract.schema import Split
from trainer.pages.evaluation import evaluation_page
from trainer.pages.training import training_page
from trainer.runs.checkpoint import read_validations, table_shapes
from trainer.runs.layout import RunLayout
from trainer.runs.record import RunRecord, read_record

log = logging.getLogger(__name__)

Shown = Literal["data", "training", "evaluation"]
"""The page that is open first."""


def write_report(workdir: str, *, data: str | None = None, shown: Shown = "training") -> str:
    """Draws the report of the run at `workdir`, and returns where it lies.

    Args:
      workdir: directory of the run.
      data: where its dataset lies now; by default where it lay when the run began. Without it the Data page is left
        out.
      shown: the page that is open first, where it can be drawn.

    Raises:
      ValueError: there is no run.
    """
    layout, record = RunLayout(workdir), read_record(workdir)
    found = (_data(record, data or record.data), _training(workdir, record), _evaluation(layout))
    pages = [page for page in found if page]
    is_drawn = shown in [page.key for page in pages]
    html = render(pages, title=f"Cartwheel: {_name(workdir)}", shown=shown if is_drawn else "training")
    storage.write_bytes(layout.report, html.encode())
    return layout.report


def try_to_write_report(workdir: str, *, data: str | None, shown: Shown) -> str | None:
    """The same after a job whose result must not be lost over a picture: what goes wrong is logged, and None."""
    try:
        return write_report(workdir, data=data, shown=shown)
    except Exception:
        log.warning("the report of %s could not be drawn; nothing else is missing", workdir, exc_info=True)
        return None


def _data(record: RunRecord, root: str) -> DrawnPage | None:
    """The Data page that `prepare` drew; None, with a warning, where it is missing or of another dataset."""
    try:
        if dataset_checksum(root) == record.dataset_checksum:
            return DrawnPage("data", "Data", storage.read_bytes(DatasetLayout(root).data_page).decode())
        log.warning("the report has no Data page: the dataset at %s is not the one the run was trained on", root)
    except ContractError as error:
        log.warning("the report has no Data page: %s", error)
    except FileNotFoundError:
        log.warning("the report has no Data page; draw it with `cartwheel report --data %s`", root)
    return None


def _training(workdir: str, record: RunRecord) -> Page:
    layout = RunLayout(workdir)
    return training_page(
        _name(workdir),
        record,
        _read_lines(layout.metrics),
        _read_lines(layout.history),
        read_validations(workdir),
        table_shapes(workdir),
    )


def _evaluation(layout: RunLayout) -> Page | None:
    found = {split: _read(layout.evaluation(split)) for split in (Split.TEST, Split.VALIDATION)}
    evaluations = {split: evaluation for split, evaluation in found.items() if evaluation}
    try:
        return evaluation_page(_name(layout.root), evaluations) if evaluations else None
    except KeyError as error:
        log.warning("the report has no Evaluation page: it was evaluated earlier, without %s; evaluate again", error)
    return None


def _read(path: str) -> dict[str, Any] | None:
    try:
        return json.loads(storage.read_bytes(path))
    except FileNotFoundError:
        return None


def _read_lines(path: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in storage.read_bytes(path).decode().splitlines()]
    except FileNotFoundError:
        return []


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
