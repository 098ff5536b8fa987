"""Writes metrics.jsonl, history.jsonl, TensorBoard scalars and the progress bar of a run."""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from common import storage
from common.progress import make_bar
from trainer.distributed.preemption import Preempted
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

VALIDATION_RATE = "validation_cases_per_second"
"""Key in metrics.jsonl for the speed of a validation."""


class RunLog:
    """Writes the metrics and the history of a run. Only the chief writes."""

    def __init__(self, workdir: str, *, is_chief: bool, total_rows: int, first_row: int, first_step: int) -> None:
        """Opens the log of a run that has trained `first_step` steps and `first_row` rows; drops later metrics."""
        layout = RunLayout(workdir)
        self._workdir, self._is_chief, self._tensorboard = workdir, is_chief, layout.tensorboard
        self._earlier_lines = _lines_until(layout.metrics, first_step) if is_chief else []
        self._metrics = _Lines(layout.metrics, self._earlier_lines)
        self._history = _Lines(layout.history, read_lines(layout.history) if is_chief else [])
        # object stores cannot append to TensorBoard's files, so they are written locally and copied
        is_local = storage.is_local(workdir)
        self._events = self._tensorboard if is_local else storage.make_scratch("tensorboard")
        self._writer = tf.summary.create_file_writer(self._events) if is_chief else None
        self._bar = make_bar(total_rows, "examples", initial=first_row, is_shown=is_chief)
        self._step = first_step
        self._since = time.monotonic()
        gpus = len(tf.config.list_physical_devices("GPU"))
        self.log_event("resumed" if first_step else "started", cpus=os.cpu_count(), gpus=gpus)

    def losses_since(self, step: int) -> list[tuple[int, float]]:
        """Returns the losses that earlier processes logged from `step` on, in order.

        Each pair is a number of consecutive steps and the mean loss of these steps.
        """
        losses = [line for line in self._earlier_lines if "loss" in line and line["step"] > step]
        starts = [step, *(line["step"] for line in losses)]
        return [(line["step"] - start, line["loss"]) for start, line in zip(starts, losses, strict=False)]

    def log_event(self, event: str, **details: int | str | None) -> None:
        """Adds an event, such as `checkpoint`, to the history, and writes all lines so far.

        Events stay in the history even if a resumed run repeats their steps.
        """
        if not self._is_chief:
            return
        self._check_owner()
        self._history.add({"time": round(time.time(), 3), "event": event, "step": self._step, **details})
        # write immediately, so that a killed run has logged everything up to its last checkpoint
        for lines in (self._history, self._metrics):
            with _warn_on_error(lines.path):
                lines.write()
        self._since = time.monotonic()  # the time before, such as the pause of a checkpoint, was not training

    def log_steps(self, *, step: int, epoch: int, rows: int, loss: float) -> None:
        """Logs the steps since the previous call.

        Args:
          step: number of steps so far.
          epoch: epoch of these steps.
          rows: number of rows that these steps trained on.
          loss: mean loss of these steps.
        """
        now = time.monotonic()
        rate = rows / max(now - self._since, 1e-9)
        self._since, self._step = now, step
        self._bar.update(rows)
        self._bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", refresh=False)
        self._write({"step": step, "epoch": epoch, "loss": loss, "examples_per_second": round(rate, 1)})

    def log_validation(self, *, step: int, epoch: int, metric: str, value: float, rate: float) -> None:
        """Logs the `value` of a validation metric, and the speed of the validation, `rate`, in cases per second."""
        line = {"step": step, "epoch": epoch, f"validation_{metric}": value, VALIDATION_RATE: round(rate, 3)}
        self._write(line)
        self._since = time.monotonic()

    def log_epoch(self, epoch: int, text: str) -> None:
        """Shows `text`, the results of an epoch, above the progress bar, and writes the metrics so far."""
        self._flush()
        if self._is_chief and self._bar.disable:
            log.info("epoch %d: %s", epoch, text)
        elif self._is_chief:
            self._bar.write(f"epoch {epoch}: {text}", file=sys.stderr)
        self._since = time.monotonic()

    def close(self) -> None:
        """Writes all lines and closes the files."""
        self._flush()
        self._bar.close()
        if self._writer is not None:
            with _warn_on_error(self._tensorboard):
                self._writer.close()
        if self._events != self._tensorboard:
            shutil.rmtree(self._events, ignore_errors=True)

    def _write(self, line: dict[str, Any]) -> None:
        if self._writer is None:
            return
        self._metrics.add({**line, "time": round(time.time(), 3)})
        with _warn_on_error(self._tensorboard), self._writer.as_default(step=line["step"]):
            for name, value in line.items():
                if name not in ("step", "epoch"):
                    tf.summary.scalar(name, value)

    def _check_owner(self) -> None:
        """Stops logging if another process has taken over the run; unwritten lines are lost.

        Raises:
          OwnershipError: another process has taken over the run.
        """
        try:
            storage.try_to_check_ownership(self._workdir)
        except storage.OwnershipError:
            self._is_chief, self._writer = False, None
            raise

    def _flush(self) -> None:
        if self._writer is None:
            return
        self._check_owner()
        with _warn_on_error(self._metrics.path):
            self._metrics.write()
        with _warn_on_error(self._tensorboard):
            self._writer.flush()
            if self._events != self._tensorboard:
                storage.upload_all(self._events, storage.list_files(self._events), self._tensorboard)


class _Lines:
    """A file of JSON lines. Each write replaces the whole file, because object stores cannot append."""

    def __init__(self, path: str, lines: Sequence[Mapping[str, Any]]) -> None:
        self.path, self._lines = path, [json.dumps(line, allow_nan=False) for line in lines]

    def add(self, line: Mapping[str, Any]) -> None:
        self._lines.append(json.dumps(line, allow_nan=False))

    def write(self) -> None:
        """Writes all lines; after a failure, the next call writes them again."""
        storage.write_bytes(self.path, "".join(f"{line}\n" for line in self._lines).encode())


@contextmanager
def _warn_on_error(path: str) -> Iterator[None]:
    """Logs a failed write to `path` as a warning, because a full disk must not end a run."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        log.warning("%s could not be written (%s); training continues without it", path, error)


@contextmanager
def open_log(workdir: str, *, is_chief: bool, total_rows: int, first_row: int, first_step: int) -> Iterator[RunLog]:
    """Yields an open `RunLog`; at the end, logs the event `finished`, `preempted`, or `failed` with the reason."""
    run_log = RunLog(workdir, is_chief=is_chief, total_rows=total_rows, first_row=first_row, first_step=first_step)
    try:
        yield run_log
    except Preempted:
        run_log.log_event("preempted")
        raise
    except BaseException as error:
        run_log.log_event("failed", reason=str(error) or type(error).__name__)
        raise
    else:
        run_log.log_event("finished")
    finally:
        run_log.close()


def _lines_until(path: str, first_step: int) -> list[dict[str, Any]]:
    """Reads the lines of all steps up to and including `first_step`."""
    return [line for line in read_lines(path) if line["step"] <= first_step]


def read_lines(path: str) -> list[dict[str, Any]]:
    """Reads the lines of metrics.jsonl or history.jsonl; empty if the file does not exist.

    Skips damaged lines with a warning.
    """
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        return []
    parsed = [_parse_line(line) for line in content.splitlines()]
    lines = [line for line in parsed if line is not None]
    if len(lines) < len(parsed):
        log.warning("%s: %d of %d lines are damaged and skipped", path, len(parsed) - len(lines), len(parsed))
    return lines


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        json.dumps(values, allow_nan=False)  # Python reads NaN and 1e999, but a resumed run could not write them
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and isinstance(values.get("step"), int) else None
