"""How far a Beam pipeline has come: a bar that its elements move on, where Beam runs in this process."""

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from common.progress import make_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """A part of a pipeline that begins when the one before it is done: its title, and how much of what it does."""

    title: str
    total: int
    unit: str = "partitions"


class _Bars:
    """One bar after the other, a phase each."""

    def __init__(self, phases: Sequence[Phase], *, is_shown: bool) -> None:
        self._left, self._is_shown = list(phases), is_shown
        self.is_stopped = False
        self._open_next()

    def move(self, amount: int) -> None:
        if self.is_stopped:
            raise InterruptedError("nobody waits for this pipeline any longer")
        self._bar.update(amount)
        if self._left and self._bar.n >= self._total:
            self._bar.close()
            self._open_next()

    def close(self) -> None:
        self._bar.close()

    def _open_next(self) -> None:
        phase = self._left.pop(0)
        self._total = phase.total
        self._bar = make_bar(phase.total, phase.unit, title=phase.title, is_shown=self._is_shown)


# Beam pickles what a pipeline runs, in this process too: a key comes through it, a bar does not
_OPEN: dict[str, _Bars] = {}


@dataclass(frozen=True)
class Tell:
    """Moves the bar on from within a pipeline; on workers elsewhere, where there is none, it does nothing."""

    key: str

    def amount(self, amount: int) -> None:
        """So much more is done."""
        if bars := _OPEN.get(self.key):
            bars.move(amount)

    def one(self, _: object) -> None:
        """One more is done."""
        self.amount(1)


def stop_pipelines() -> None:
    """Lets the pipelines of this process fail at the next element that tells of itself."""
    for bars in list(_OPEN.values()):
        bars.is_stopped = True


@contextmanager
def watch(*phases: Phase, is_shown: bool) -> Iterator[Tell]:
    """What elements tell, for as long as a pipeline runs; in the end a line in the log, whatever was shown."""
    tell, begin = Tell(uuid.uuid4().hex), time.monotonic()
    bars = _OPEN[tell.key] = _Bars(phases, is_shown=is_shown)
    try:
        yield tell
        done = ", ".join(f"{phase.title}: {phase.total:,} {phase.unit}" for phase in phases)
        log.info("%s; %.1f s", done, time.monotonic() - begin)
    finally:
        del _OPEN[tell.key]
        bars.close()
