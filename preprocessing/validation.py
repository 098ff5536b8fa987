"""Validates rows, column by column, and whole inputs.

A check of rows takes columns [N] and marks the invalid rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FIELD_COUNT = "wrong number of fields"
QUOTING = "unbalanced quote or embedded newline"
ENCODING = "invalid UTF-8"
INVALID_JSON = "not a JSON object"
BAD_TIME = "time cannot be read"
IMPLAUSIBLE_TIME = "time outside 1970-02-18 to 2100"
UNKNOWN_EVENT = "unknown event kind"
EMPTY_ID = "empty id"
BAD_WEIGHT = "weight is not a number from 0 to 1e9"

REASONS = (
    FIELD_COUNT,
    QUOTING,
    ENCODING,
    INVALID_JSON,
    BAD_TIME,
    IMPLAUSIBLE_TIME,
    UNKNOWN_EVENT,
    EMPTY_ID,
    BAD_WEIGHT,
)


@dataclass(frozen=True)
class Flaws:
    """The invalid rows, and the reason of each. A row with several reasons keeps the first."""

    codes: np.ndarray
    """[N] int8: 0 for a valid row, else 1 + the index of the reason in REASONS."""

    @classmethod
    def none(cls, num_rows: int) -> "Flaws":
        """Returns an object in which all `num_rows` rows are valid."""
        return cls(np.zeros(num_rows, np.int8))

    def mark(self, rows: np.ndarray, reason: str) -> None:
        """Marks as invalid the rows in the mask `rows` [N]. `reason` is one of REASONS."""
        self.codes[rows & self.is_valid] = 1 + REASONS.index(reason)

    @property
    def is_valid(self) -> np.ndarray:
        """Mask [N] of the valid rows."""
        return self.codes == 0

    @property
    def invalid_rows(self) -> np.ndarray:
        """Indices of the invalid rows, ascending."""
        return np.flatnonzero(self.codes)

    @property
    def reasons(self) -> list[str]:
        """The reason of each invalid row, in the order of `invalid_rows`."""
        return [REASONS[code - 1] for code in self.codes[self.codes > 0]]


def check_ids(texts: pa.Array, flaws: Flaws) -> None:
    """Marks the rows with an empty id as invalid."""
    flaws.mark(pc.equal(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False), EMPTY_ID)


@dataclass(frozen=True)
class RejectReason:
    """Summary of the rows rejected for one reason."""

    count: int
    """Number of rows."""
    first: str
    """The first of these rows, as `FILE at POSITION: TEXT`. The position is a byte or a row number."""


def check_reject_share(name: str, num_rows: int, rejects: Mapping[str, RejectReason], max_share: float) -> None:
    """Raises an error if too many rows of an input are invalid.

    `name` is the kind of rows in messages, such as `event`; `num_rows` is the number of all rows.

    Raises:
      ValueError: the share of invalid rows exceeds `max_share`.
    """
    num_rejected = sum(reason.count for reason in rejects.values())
    if num_rows == 0 or num_rejected <= max_share * num_rows:
        return
    by_count = sorted(rejects.items(), key=lambda entry: -entry[1].count)[:3]
    reasons = "; ".join(f"{text}: {reason.count} (first: {reason.first})" for text, reason in by_count)
    raise ValueError(
        f"{num_rejected} of {num_rows} {name} rows are invalid ({num_rejected / num_rows:.2%}, above "
        f"--max-reject-share {max_share:g}): {reasons}. Fix the input, or raise --max-reject-share to skip these rows."
    )


def check_not_empty(num_events: int, num_rows: int, robot_visitors: int, glob: str) -> None:
    """Raises an error if an input has no usable event.

    `num_events` is the number of usable events; `num_rows` is the number of all rows.

    Raises:
      ValueError: all events are invalid or belong to robots.
    """
    if num_events:
        return
    if robot_visitors:
        advice = f"all visitors ({robot_visitors}) have more events on one day than --max-events-per-day; raise it"
    else:
        advice = "check the glob and the contents of the files"
    raise ValueError(f"{glob} has no usable event in {num_rows} rows; {advice}")
