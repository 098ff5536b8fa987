"""How large each part of a shop is, from the number of its visitors.

The full size is Retailrocket's. Counts of events, items and visitors shrink with the visitors, and so what is counted
for each visitor or item stays. The number of categories and properties shrinks more slowly, for a small shop is still
sorted into shelves; so do extremes, yet fast enough that a small shop's best-seller does not take all.
"""

from dataclasses import dataclass

FULL_VISITORS = 1_407_580
MIN_VISITORS = 50

BEGIN_MS = 1_430_622_004_384  # 2015-05-03 03:00:04.384 UTC, the first event
END_MS = 1_442_545_187_788  # 2015-09-18 02:59:47.788 UTC, the last event

_VARIETY_EXPONENT, _EXTREME_EXPONENT = 0.4, 0.6
_DAY_MS = 86_400_000
_FIRST_SNAPSHOT_MS = 1_431_226_800_000  # 2015-05-10 03:00 UTC, a Sunday
# 19 Sundays from 05-10 to 09-13 have 18 snapshots: one is missing
SNAPSHOTS_MS = tuple(_FIRST_SNAPSHOT_MS + 7 * _DAY_MS * week for week in range(19) if week != 6)


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """A shop to make.

    visitors   visitor ids in the event log; 1,407,580 gives a shop of Retailrocket's size
    seed       another seed gives another shop of the same shape
    """

    visitors: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.visitors < MIN_VISITORS:
            raise ValueError(
                f"a shop needs at least {MIN_VISITORS} visitors to have buyers and items, got {self.visitors}; "
                "20000 make a shop that is quick and worth recommending in"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class Scale:
    """Counts for a shop of so many visitors."""

    visitors: int

    def count(self, at_full_size: float) -> int:
        """A count that grows with the visitors; at least 1."""
        return max(1, round(at_full_size * self.visitors / FULL_VISITORS))

    def variety(self, at_full_size: float, *, at_least: int = 1) -> int:
        """A number of kinds (categories, properties): it shrinks slowly."""
        return max(at_least, round(at_full_size * (self.visitors / FULL_VISITORS) ** _VARIETY_EXPONENT))

    def extreme(self, at_full_size: float) -> int:
        """The largest of a heavy-tailed count over items; at least 1."""
        return max(1, round(at_full_size * (self.visitors / FULL_VISITORS) ** _EXTREME_EXPONENT))
