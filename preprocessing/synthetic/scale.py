"""Computes the sizes of all parts of a shop from its number of visitors.

A full-size shop is as large as Retailrocket. The counts of events and items are proportional to the number of visitors,
so that rates per visitor and per item do not depend on the size. The numbers of categories and properties shrink more
slowly, because a small shop also has several categories. The counts of the most popular items shrink more slowly, too,
but fast enough to leave events for the other items of a small shop.
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
    """The settings of a synthetic shop."""

    visitors: int
    """Number of visitors in the event log. 1,407,580 gives a shop of Retailrocket's size."""

    seed: int = 0
    """Random seed. Another seed gives another shop with the same statistics."""

    def __post_init__(self) -> None:
        if self.visitors < MIN_VISITORS:
            raise ValueError(
                f"a shop needs at least {MIN_VISITORS} visitors to have buyers and items, got {self.visitors}; "
                "20000 is a good size to start with"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class Scale:
    """Scales counts from Retailrocket's size to another number of visitors."""

    visitors: int
    """Number of visitors of the scaled shop."""

    def count(self, at_full_size: float) -> int:
        """Scales a count in proportion to the number of visitors. The result is at least 1."""
        return max(1, round(at_full_size * self.visitors / FULL_VISITORS))

    def variety(self, at_full_size: float, *, at_least: int = 1) -> int:
        """Scales a number of categories or properties.

        The result grows more slowly than the number of visitors. It is at least `at_least`.
        """
        return max(at_least, round(at_full_size * (self.visitors / FULL_VISITORS) ** _VARIETY_EXPONENT))

    def extreme(self, at_full_size: float) -> int:
        """Scales a maximum, such as the most events of an item. It grows more slowly than the number of visitors."""
        return max(1, round(at_full_size * (self.visitors / FULL_VISITORS) ** _EXTREME_EXPONENT))
