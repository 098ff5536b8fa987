"""Stops a run whose loss has left the finite numbers, or grows beyond its beginning; tells what the step was fed.

Shapes: B rows of the global batch, D columns of a table.
"""

from collections import deque
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from contract.schema import EVENT_KINDS
from trainer.data.input_pipeline import Batch
from trainer.distributed.embeddings import ShardedTable

WINDOW = 20
"""Steps whose mean is compared: a batch of a few rare events is no divergence."""

RESUMED_STEPS = 100
"""First steps of a resumed run, of whose losses the largest stands for its beginning."""


class DivergenceMonitor:
    """Looks at every loss of a run once."""

    def __init__(self, max_growth: float | None, *, is_beginning: bool) -> None:
        """A watch that finds fault with a mean over `WINDOW` steps above `max_growth` times the first loss.

        Args:
          max_growth: None: only what is not finite is a fault.
          is_beginning: the first loss is of weights that nothing has moved yet: it tells the level.
        """
        self._max_growth = max_growth
        self._steps_left = 1 if is_beginning else RESUMED_STEPS
        self._level = 0.0
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def check(self, losses: np.ndarray) -> tuple[int, str] | None:
        """The place in the next losses [n] of the first that is a fault, and what is wrong; None where all are good."""
        for place, loss in enumerate(losses.tolist()):
            if not np.isfinite(loss):
                return place, f"the loss is {loss}"
            self._recent.append(loss)
            if self._steps_left:
                self._level = max(self._level, loss)
                self._steps_left -= 1
            elif self._max_growth is not None and len(self._recent) == WINDOW:
                mean = sum(self._recent) / WINDOW
                if mean > self._max_growth * self._level:
                    return place, (
                        f"the loss has grown to {mean:.4g}, the mean of the last {WINDOW} steps, more than "
                        f"{self._max_growth:g} times the {self._level:.4g} that it began with"
                    )
        return None


def describe_batch(batch: Batch, event_weights: Sequence[float]) -> str:
    """How many rows of a batch are of which kind, what they weigh, and where their ids lie."""
    is_row = batch.is_row.numpy()
    visitor, item, event = (column.numpy()[is_row] for column in (batch.visitor, batch.item, batch.event))
    counts = np.bincount(event, minlength=len(EVENT_KINDS))
    kinds = ", ".join(
        f"{count} {kind} of weight {weight:g}"
        for kind, count, weight in zip(EVENT_KINDS, counts, event_weights, strict=True)
    )
    return (
        f"its batch has {is_row.sum()} rows ({kinds}), {_describe_ids('visitor', visitor)}, "
        f"{_describe_ids('item', item)}"
    )


def describe_tables(tables: Mapping[str, ShardedTable]) -> str:
    """The longest row of each table, of the replicas of this process, and how many rows are not finite."""
    parts = []
    for name, table in tables.items():
        longest, num_bad = 0.0, 0
        for replica in table.values.shards:
            for rows in table.values.chunks(replica):
                with np.errstate(over="ignore", invalid="ignore"):
                    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
                is_good = np.isfinite(lengths)
                longest = max(longest, lengths[is_good].max(initial=0))
                num_bad += int((~is_good).sum())
        parts.append(f"{name} rows are up to {longest:.3g} long" + (f", {num_bad} not finite" if num_bad else ""))
    return "; ".join(parts)


def describe_dense(weights: Sequence[keras.Variable]) -> str:
    """The dense weight with the largest entry, and which ones are not finite."""
    largest, largest_name, bad = 0.0, "", []
    for weight in weights:
        values = np.abs(np.asarray(weight, np.float64))
        if not np.isfinite(values).all():
            bad.append(weight.name)
        entry = values[np.isfinite(values)].max(initial=0)
        if entry >= largest:
            largest, largest_name = entry, weight.name
    told = f"dense weights are up to {largest:.3g} ({largest_name})"
    return f"{told}, not finite: {', '.join(bad)}" if bad else told


def _describe_ids(name: str, ids: np.ndarray) -> str:
    return f"{name} indices {ids.min()} to {ids.max()} ({len(np.unique(ids))} distinct)"
