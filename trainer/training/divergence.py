"""Detects a loss that is NaN, infinite or grows too much, and describes the batch and the weights of the failing step.

Shapes: D columns of a table.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from trainer.data.input_pipeline import Batch
from trainer.distributed.embeddings import ShardedTable

WINDOW = 20
"""Number of steps whose mean loss is checked; the loss of a single batch may be high by chance."""

RESUMED_STEPS = 100
"""In a resumed run, the largest loss of this many steps replaces the initial loss, which is not stored."""


@dataclass(frozen=True)
class Divergence:
    """The first loss that is too large, infinite or NaN."""

    index: int
    """Index of this loss in the losses that were passed to `check`."""
    problem: str
    """Text for the error message: what is wrong with the loss."""


class DivergenceMonitor:
    """Detects divergence from the losses of a run. Each loss must be passed once, in order."""

    def __init__(self, max_growth: float | None, *, is_new_run: bool) -> None:
        """Creates a monitor of a run.

        A run has diverged if a loss is not finite, or if the mean of the last `WINDOW` losses exceeds `max_growth`
        times the initial loss.

        Args:
          max_growth: the factor; None: only a loss that is not finite means divergence.
          is_new_run: True: the initial loss is the first loss. False: it is the maximum of the first `RESUMED_STEPS`
            losses after the run was resumed.
        """
        self._max_growth = max_growth
        self._start_steps_left = 1 if is_new_run else RESUMED_STEPS
        self._start_loss = 0.0
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def check(self, losses: np.ndarray) -> Divergence | None:
        """Checks the losses [n] of the next n steps; returns the first problem, or None."""
        for index, loss in enumerate(losses.tolist()):
            if not np.isfinite(loss):
                return Divergence(index, f"the loss is {loss}")
            self._recent.append(loss)
            if self._start_steps_left:
                self._start_loss = max(self._start_loss, loss)
                self._start_steps_left -= 1
            elif self._max_growth is not None and len(self._recent) == WINDOW:
                mean = sum(self._recent) / WINDOW
                if mean > self._max_growth * self._start_loss:
                    return Divergence(
                        index,
                        f"the loss has grown to {mean:.4g} (mean of the last {WINDOW} steps), more than "
                        f"{self._max_growth:g} times its value at the start, {self._start_loss:.4g}",
                    )
        return None


def describe_batch(batch: Batch, weight_of_kind: Mapping[str, float]) -> str:
    """Describes a batch: its event kinds, weights and ranges of indices.

    Args:
      batch: a global batch.
      weight_of_kind: weights of the event kinds, in the order of the manifest.
    """
    is_row = batch.is_row.numpy()
    visitor, item, event = (column.numpy()[is_row] for column in (batch.visitor, batch.item, batch.event))
    counts = np.bincount(event, minlength=len(weight_of_kind))
    kinds = ", ".join(
        f"{count} {kind} of weight {weight:g}"
        for count, (kind, weight) in zip(counts, weight_of_kind.items(), strict=True)
    )
    return (
        f"its batch has {is_row.sum()} rows ({kinds}), {_describe_ids('visitor', visitor)}, "
        f"{_describe_ids('item', item)}"
    )


def describe_tables(tables: Mapping[str, ShardedTable]) -> str:
    """Describes, for the rows of each table in this process, the largest norm and the number of non-finite rows."""
    descriptions = []
    for name, table in tables.items():
        largest, num_bad = 0.0, 0
        for replica in table.values.shards:
            for rows in table.values.chunks(replica):
                with np.errstate(over="ignore", invalid="ignore"):
                    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
                is_finite = np.isfinite(norms)
                largest = max(largest, norms[is_finite].max(initial=0))
                num_bad += int((~is_finite).sum())
        descriptions.append(
            f"{name} rows have norms up to {largest:.3g}" + (f", {num_bad} not finite" if num_bad else "")
        )
    return "; ".join(descriptions)


def describe_dense(weights: Sequence[keras.Variable]) -> str:
    """Describes dense weights: their largest absolute entry, and the names of those that are not finite."""
    largest, largest_name, bad = 0.0, "", []
    for weight in weights:
        values = np.abs(np.asarray(weight, np.float64))
        is_finite = np.isfinite(values)
        if not is_finite.all():
            bad.append(weight.name)
        entry = values[is_finite].max(initial=0)
        if entry >= largest:
            largest, largest_name = entry, weight.name
    description = f"dense weights have entries up to {largest:.3g} ({largest_name})"
    return f"{description}, not finite: {', '.join(bad)}" if bad else description


def _describe_ids(name: str, ids: np.ndarray) -> str:
    return f"{name} indices {ids.min()} to {ids.max()} ({len(np.unique(ids))} distinct)"
