"""Progress bars of Beam pipelines. The code that processes the elements advances the bars."""

import functools
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from common.progress import make_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A stage of a pipeline, with a progress bar. The phases of a pipeline run in sequence."""

    title: str
    """Title of the phase's progress bar."""
    total: int
    """Amount of work."""
    unit: str = "partitions"
    """Unit of `total`, in the plural; `B` for bytes."""


class _Bars:
    def __init__(self, phases: Sequence[Phase], *, is_shown: bool) -> None:
        self._remaining, self._is_shown = list(phases), is_shown
        self._lock = threading.Lock()  # a runner may process elements in several threads
        self.is_stopped = False
        self._open_next()

    def advance(self, amount: int) -> None:
        if self.is_stopped:
            raise InterruptedError(
                "this part of the job was cancelled, because another part failed or was interrupted; see the message "
                "of that part"
            )
        with self._lock:
            self._bar.update(amount)
            if self._remaining and self._bar.n >= self._total:
                self._bar.close()
                self._open_next()

    def close(self) -> None:
        self._bar.close()

    def _open_next(self) -> None:
        phase = self._remaining.pop(0)
        self._total = phase.total
        self._bar = make_bar(phase.total, phase.unit, title=phase.title, is_shown=self._is_shown)


@functools.cache
def _running_pipelines() -> dict[str, _Bars]:
    """Returns the progress bars of the pipelines in this process, by key.

    A pipeline's functions hold only its key, because Beam pickles these functions and progress bars cannot be pickled.
    """
    return {}


@dataclass(frozen=True)
class ProgressCounter:
    """Advances a pipeline's progress bars. Does nothing in processes without the bars, such as remote workers."""

    key: str
    """Key of the pipeline in `_running_pipelines`."""

    def add(self, amount: int) -> None:
        """Adds completed work, in the unit of the current phase.

        Raises:
          InterruptedError: `cancel_pipelines` cancelled the pipeline.
        """
        if bars := _running_pipelines().get(self.key):
            bars.advance(amount)

    def add_one(self, _: object) -> None:
        """Adds one completed element."""
        self.add(1)


def cancel_pipelines() -> None:
    """Cancels the pipelines in this process. Each fails at its next progress update."""
    for bars in list(_running_pipelines().values()):
        bars.is_stopped = True


@contextmanager
def track_progress(*phases: Phase, is_shown: bool) -> Iterator[ProgressCounter]:
    """Yields a progress counter for a pipeline that runs in the context. Logs the duration at the end."""
    counter, begin = ProgressCounter(uuid.uuid4().hex), time.monotonic()
    bars = _running_pipelines()[counter.key] = _Bars(phases, is_shown=is_shown)
    try:
        yield counter
        done = ", ".join(f"{phase.title}: {phase.total:,} {phase.unit}" for phase in phases)
        log.info("%s; %.1f s", done, time.monotonic() - begin)
    finally:
        del _running_pipelines()[counter.key]
        bars.close()
