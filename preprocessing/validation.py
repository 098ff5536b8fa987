"""What makes a row bad, column by column; and whether a whole input may be used.

Every check takes columns [N] and marks rows, so that a bad row costs the good ones nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.schema import EVENT_KINDS
from preprocessing.config import PLAUSIBLE_FROM_MS, PLAUSIBLE_UNTIL_MS, format_when

FIELD_COUNT = "wrong number of fields"
QUOTING = "unbalanced quote or embedded newline"
ENCODING = "invalid UTF-8"
BAD_TIMESTAMP = "timestamp is not a whole number"
IMPLAUSIBLE_TIMESTAMP = "timestamp outside 2000 to 2100 (milliseconds expected)"
UNKNOWN_EVENT = "unknown event kind"
EMPTY_ID = "empty id"


REASONS = (FIELD_COUNT, QUOTING, ENCODING, BAD_TIMESTAMP, IMPLAUSIBLE_TIMESTAMP, UNKNOWN_EVENT, EMPTY_ID)


@dataclass(frozen=True)
class Flaws:
    """What is wrong with each row, [N] int8: 0 nothing, else 1 + a place in REASONS; a row's first flaw stands."""

    codes: np.ndarray

    @classmethod
    def none(cls, num_rows: int) -> "Flaws":
        return cls(np.zeros(num_rows, np.int8))

    def mark(self, rows: np.ndarray, reason: str) -> None:
        """Gives `reason` to the rows of a mask [N] that have none yet."""
        self.codes[rows & self.is_good] = 1 + REASONS.index(reason)

    @property
    def is_good(self) -> np.ndarray:
        return self.codes == 0

    @property
    def bad_rows(self) -> np.ndarray:
        """Places of the bad rows, ascending."""
        return np.flatnonzero(self.codes)

    def reasons(self) -> list[str]:
        """The reason of each bad row, in the order of `bad_rows`."""
        return [REASONS[code - 1] for code in self.codes[self.codes > 0]]


def parse_timestamps(texts: pa.Array, flaws: Flaws) -> np.ndarray:
    """[N] int64 milliseconds; 0 where the text is no number, which `flaws` then says."""
    is_number = pc.match_substring_regex(texts, r"^[0-9]{1,18}$")
    flaws.mark(~is_number.to_numpy(zero_copy_only=False), BAD_TIMESTAMP)
    values = pc.cast(pc.if_else(is_number, texts, "0"), pa.int64()).to_numpy()
    flaws.mark((values < PLAUSIBLE_FROM_MS) | (values >= PLAUSIBLE_UNTIL_MS), IMPLAUSIBLE_TIMESTAMP)
    return values


def parse_events(texts: pa.Array, flaws: Flaws) -> np.ndarray:
    """[N] int8 places in EVENT_KINDS; -1 where the kind is unknown, which `flaws` then says."""
    kinds = pc.fill_null(pc.index_in(texts, value_set=pa.array(EVENT_KINDS)), -1).to_numpy().astype(np.int8)
    flaws.mark(kinds < 0, UNKNOWN_EVENT)
    return kinds


def check_ids(texts: pa.Array, flaws: Flaws) -> None:
    """An id is any text but the empty one."""
    flaws.mark(pc.equal(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False), EMPTY_ID)


def check_reject_share(what: str, num_rows: int, rejects: Mapping[str, "RejectReason"], max_share: float) -> None:
    """Refuses an input of which too many rows are bad.

    Raises:
      ValueError: names the share and the most frequent reasons, each with a place to look.
    """
    num_rejected = sum(reason.count for reason in rejects.values())
    if num_rows == 0 or num_rejected <= max_share * num_rows:
        return
    by_count = sorted(rejects.items(), key=lambda entry: -entry[1].count)[:3]
    reasons = "; ".join(f"{name}: {reason.count} (first: {reason.first})" for name, reason in by_count)
    raise ValueError(
        f"{num_rejected} of {num_rows} {what} rows are bad, {num_rejected / num_rows:.2%}, above --max-reject-share "
        f"{max_share:g}: {reasons}. Mend the input, or raise --max-reject-share to go on without these rows."
    )


@dataclass(frozen=True)
class RejectReason:
    """How many rows a reason sent away, and the first of them: `file at byte N: text`."""

    count: int
    first: str


def check_not_empty(num_events: int, num_rows: int, robot_visitors: int, glob: str) -> None:
    """Refuses an input without a single event of a person."""
    if num_events:
        return
    if robot_visitors:
        advice = f"all {robot_visitors} visitors have more events on a day than --max-events-per-day; raise it"
    else:
        advice = "check the glob and the files' contents"
    raise ValueError(f"{glob} holds no usable event among {num_rows} rows; {advice}")


def check_splits(counts: Mapping[str, int], cuts: tuple[int, int] | None, usable: tuple[int, int] | None) -> None:
    """Refuses a division that leaves a split without rows.

    Args:
      counts: rows of each split.
      cuts: validation and test cut, ms; None: the split is at random.
      usable: cuts that would leave no split empty; None where there are none.

    Raises:
      ValueError: names the empty splits, and cuts that would work.
    """
    empty = [name for name, count in counts.items() if count == 0]
    if not empty:
        return
    if cuts is None:
        total = sum(counts.values())
        raise ValueError(
            f"no event falls into {', '.join(empty)}: {total} events are too few for a random split; give more, or use "
            "--split none"
        )
    at = " and ".join(format_when(cut) for cut in cuts)
    if usable is None:
        advice = "the events have fewer than three distinct times: give more events, or use --split none"
    else:
        advice = f"--validation-from {format_when(usable[0])} --test-from {format_when(usable[1])} would work"
    raise ValueError(f"no event falls into {', '.join(empty)} with cuts at {at}; {advice}")
