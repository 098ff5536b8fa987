"""Writes `report.html` of a run: the pages Data, Training and Evaluation, from the files that exist."""

import json
import logging
from typing import Any, Literal

from common import storage
from common.errors import ContractError, explain_damage
from common.report.page import DrawnPage, Page, render
from contract.layout import DatasetLayout
from contract.manifest import dataset_checksum
from contract.schema import Split
from trainer.models.trained_run import part_directory
from trainer.pages.blend import blend_page
from trainer.pages.evaluation import evaluation_page
from trainer.pages.training import training_page
from trainer.runs.blend_record import read_blend
from trainer.runs.checkpoint import read_validations, table_shapes
from trainer.runs.layout import RunLayout
from trainer.runs.metrics_log import read_lines
from trainer.runs.record import RunRecord, read_record

log = logging.getLogger(__name__)

Shown = Literal["data", "training", "evaluation"]
"""Key of the page that is open first."""


def write_report(workdir: str, *, data: str | None = None, shown: Shown = "training") -> str:
    """Writes `report.html` of a run and returns its path.

    Args:
      workdir: directory of the run.
      data: directory of the run's dataset. None: the path that the run was trained from. Without the dataset, the
        report has no Data page, and a warning is logged.
      shown: the page that opens first; the Training page if there is no such page.

    Raises:
      ValueError: there is no run, or one of its files is damaged.
    """
    layout, record = RunLayout(workdir), read_record(workdir)
    blend = read_blend(workdir)
    # the models of --preset auto are runs below the workdir: the Training page is that of the first model
    first = workdir if blend is None else part_directory(workdir, blend.parts[0])
    drawn = (
        _read_data_page(record, data or record.data),
        None if blend is None else blend_page(_name(workdir), blend, _read_json(layout.auto) or []),
        _draw_training_page(first, record),
        _draw_evaluation_page(layout, record),
    )
    pages = [page for page in drawn if page]
    is_drawn = shown in [page.key for page in pages]
    html = render(pages, title=f"Cartwheel: {_name(workdir)}", shown=shown if is_drawn else "training")
    storage.write_bytes(layout.report, html.encode())
    return layout.report


def try_to_write_report(workdir: str, *, data: str | None, shown: Shown) -> str | None:
    """Writes the report and returns its path; after an error, logs a warning and returns None.

    See `write_report` for the arguments.
    """
    try:
        return write_report(workdir, data=data, shown=shown)
    except Exception as error:
        log.warning(
            "the report of %s could not be drawn (%s: %s), but all other files are complete; fix this error, then draw "
            "the report with `cartwheel report --workdir %s`",
            workdir,
            type(error).__name__,
            error,
            workdir,
            exc_info=not isinstance(error, ValueError | OSError),
        )
        return None


def _read_data_page(record: RunRecord, root: str) -> DrawnPage | None:
    """Returns the Data page of the run's dataset; if it cannot be read, logs a warning and returns None."""
    try:
        if dataset_checksum(root) == record.dataset_checksum:
            return DrawnPage("data", "Data", storage.read_bytes(DatasetLayout(root).data_page).decode())
        log.warning(
            "the report has no Data page: the run was not trained on the dataset at %s; give the original dataset "
            "with --data",
            root,
        )
    except ContractError as error:
        log.warning("the report has no Data page: %s; if the dataset was moved, give its path with --data", error)
    except FileNotFoundError:
        log.warning(
            "the report has no Data page: the dataset has no report of its own; draw the dataset's report with "
            "`cartwheel report --data %s`, then draw the report of the run again",
            root,
        )
    return None


def _draw_training_page(workdir: str, record: RunRecord) -> Page:
    layout = RunLayout(workdir)
    return training_page(
        _name(workdir),
        record,
        read_lines(layout.metrics),
        read_lines(layout.history),
        read_validations(workdir),
        table_shapes(workdir),
    )


def _draw_evaluation_page(layout: RunLayout, record: RunRecord) -> Page | None:
    found = {split: _read_json(layout.evaluation(split)) for split in (Split.TEST, Split.VALIDATION)}
    evaluations = {split: evaluation for split, evaluation in found.items() if evaluation}
    try:
        return evaluation_page(_name(layout.root), evaluations, record.refit_of) if evaluations else None
    except KeyError as error:
        log.warning(
            "the report has no Evaluation page: an earlier version of Cartwheel wrote the evaluation, without the "
            "field %s; evaluate the run again",
            error,
        )
    return None


def _read_json(path: str) -> Any:
    with explain_damage(path, "run the command that writes it again, or remove it"):
        return json.loads(storage.read_bytes(path)) if storage.exists(path) else None


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
