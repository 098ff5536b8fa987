"""What a run tells while it goes: metrics.jsonl, history.jsonl, TensorBoard scalars, a progress bar or log lines."""

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from common import storage
from common.progress import make_bar
from trainer.distributed.preemption import Preempted
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)


class RunLog:
    """Metrics of a run; only the chief writes, the other workers' logs stay silent."""

    def __init__(self, workdir: str, *, is_chief: bool, total_rows: int, first_row: int, first_step: int) -> None:
        """A log that goes on at `first_step`: what a killed run wrote beyond it is dropped, for it is done again.

        Args:
          total_rows: rows of the whole run, over all epochs.
          first_row: rows seen before `first_step`.
        """
        layout = RunLayout(workdir)
        self._is_chief, self._tensorboard = is_chief, layout.tensorboard
        self._metrics = _Lines(layout.metrics, _lines_until(layout.metrics, first_step) if is_chief else [])
        self._history = _Lines(layout.history, _read_lines(layout.history) if is_chief else [])
        # TensorBoard's files grow line by line, which no object store allows: they are written here and copied there
        is_local = storage.is_local(workdir)
        self._events = self._tensorboard if is_local else storage.make_scratch("cartwheel-tensorboard")
        self._writer = tf.summary.create_file_writer(self._events) if is_chief else None
        self._bar = make_bar(total_rows, "examples", initial=first_row, is_shown=is_chief)
        self._step = first_step
        self._since = time.monotonic()
        gpus = len(tf.config.list_physical_devices("GPU"))
        self.log_event("resumed" if first_step else "started", cpus=os.cpu_count(), gpus=gpus)

    def log_event(self, event: str, **details: int | str | None) -> None:
        """Adds a line to the history: unlike the metrics it keeps what was done twice."""
        if not self._is_chief:
            return
        self._history.add({"time": round(time.time(), 3), "event": event, "step": self._step, **details})
        for lines in (self._history, self._metrics):  # a run that is killed has told what led to its last checkpoint
            with _going_on_without(lines.path):
                lines.write()

    def steps(self, *, step: int, epoch: int, rows: int, loss: float) -> None:
        """Tells of the steps before `step`, which trained on `rows` rows with a mean loss."""
        now = time.monotonic()
        rate = rows / max(now - self._since, 1e-9)
        self._since, self._step = now, step
        self._bar.update(rows)
        self._bar.set_postfix(epoch=epoch, loss=f"{loss:.4f}", refresh=False)
        self._write({"step": step, "epoch": epoch, "loss": loss, "examples_per_second": round(rate, 1)})

    def validation(self, *, step: int, epoch: int, metric: str, value: float) -> None:
        """Tells what the model before `step` reached on the validation split."""
        self._write({"step": step, "epoch": epoch, f"validation_{metric}": value})
        self._since = time.monotonic()

    def epoch(self, epoch: int, text: str) -> None:
        """One line of the log, above the progress bar."""
        self._flush()
        if self._is_chief and self._bar.disable:
            log.info("epoch %d: %s", epoch, text)
        elif self._is_chief:
            self._bar.write(f"epoch {epoch}: {text}", file=sys.stderr)
        self._since = time.monotonic()

    def close(self) -> None:
        """Writes what is left."""
        self._flush()
        self._bar.close()
        if self._writer is not None:
            with _going_on_without(self._tensorboard):
                self._writer.close()
        if self._events != self._tensorboard:
            shutil.rmtree(self._events, ignore_errors=True)

    def _write(self, line: dict[str, Any]) -> None:
        if self._writer is None:
            return
        self._metrics.add({**line, "time": round(time.time(), 3)})
        with _going_on_without(self._tensorboard), self._writer.as_default(step=line["step"]):
            for name, value in line.items():
                if name not in ("step", "epoch"):
                    tf.summary.scalar(name, value)

    def _flush(self) -> None:
        if self._writer is None:
            return
        with _going_on_without(self._metrics.path):
            self._metrics.write()
        with _going_on_without(self._tensorboard):
            self._writer.flush()
            if self._events != self._tensorboard:
                storage.upload_all(self._events, storage.list_files(self._events), self._tensorboard)


class _Lines:
    """A file of JSON lines; object stores cannot append, so it is written whole, and seldom."""

    def __init__(self, path: str, lines: list[str]) -> None:
        self.path, self._lines = path, lines

    def add(self, line: Mapping[str, Any]) -> None:
        """Adds a line, which the next `write` writes."""
        self._lines.append(json.dumps(line))

    def write(self) -> None:
        """Writes all lines; OSError where they cannot be, which loses none of them."""
        storage.write_bytes(self.path, "".join(f"{line}\n" for line in self._lines).encode())


@contextmanager
def _going_on_without(path: str) -> Iterator[None]:
    """Tells of what cannot be written, as on a full disk, instead of ending the run."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        log.warning("%s could not be written (%s); the run goes on without", path, error)


@contextmanager
def open_log(workdir: str, *, is_chief: bool, total_rows: int, first_row: int, first_step: int) -> Iterator[RunLog]:
    """A `RunLog` that is closed however the run ends, and keeps how."""
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


def _lines_until(path: str, first_step: int) -> list[str]:
    """The lines of steps that stand, in order."""
    return [line for line in _read_lines(path) if json.loads(line)["step"] <= first_step]


def _read_lines(path: str) -> list[str]:
    """A file's lines, none where there is no file."""
    try:
        return storage.read_bytes(path).decode().splitlines()
    except FileNotFoundError:
        return []
