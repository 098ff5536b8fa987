"""Invalid rows of the input, with their reasons."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# per reason and chunk; all rejects of a file meet in one worker, with about 550 bytes each
_MAX_ROWS = 1000
_TEXT_BYTES = 200


@dataclass(frozen=True)
class Rejects:
    """N invalid rows of one file."""

    path: str
    """The file."""
    positions: Sequence[int]
    """[N] position of each row: the first byte in the uncompressed text, or the row number."""
    reasons: Sequence[str]
    """[N] reason of each row, from `validation.REASONS`."""
    texts: Sequence[str]
    """[N] text of each row, cut to 200 bytes."""

    def extend(self, others: "Rejects") -> "Rejects":
        """Returns these rows, followed by `others`. Both are rows of the same file."""
        return Rejects(
            self.path,
            [*self.positions, *others.positions],
            [*self.reasons, *others.reasons],
            [*self.texts, *others.texts],
        )

    def limit(self) -> "Rejects":
        """Keeps only the first 1,000 rows rejected for each reason, to bound the memory."""
        numbered: Counter[str] = Counter()
        kept = []
        for row, reason in enumerate(self.reasons):
            numbered[reason] += 1
            if numbered[reason] <= _MAX_ROWS:
                kept.append(row)
        return Rejects(
            self.path,
            [self.positions[row] for row in kept],
            [self.reasons[row] for row in kept],
            [self.texts[row] for row in kept],
        )


def shorten(row: bytes) -> str:
    """Returns the first 200 bytes of a row, as text."""
    return row[:_TEXT_BYTES].decode(errors="backslashreplace")
