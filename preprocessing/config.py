"""Settings of `prepare`, validated."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from contract.schema import SplitMethod

# outside this range a timestamp is probably not in milliseconds: seconds give 1970, microseconds the year 47,000
PLAUSIBLE_FROM_MS = 946_684_800_000  # 2000-01-01
PLAUSIBLE_UNTIL_MS = 4_102_444_800_000  # 2100-01-01


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which ids get an index of their own."""

    min_count: int = 1
    """Ids with fewer training events share the out-of-vocabulary buckets. With 0, items that occur only in the item
    properties get an index too, after all others, so that they can be recommended."""

    max_size: int | None = None
    """Maximum number of ids; the most frequent are kept. None: no limit."""

    oov_buckets: int = 1
    """Number of indices after the vocabulary's for all other ids, which are assigned by hash."""

    def __post_init__(self) -> None:
        if self.min_count < 0:
            raise ValueError(f"min_count must not be negative, got {self.min_count}")
        if self.max_size is not None and self.max_size < 1:
            raise ValueError(f"max_size must be at least 1, got {self.max_size}")
        if self.oov_buckets < 1:
            raise ValueError(f"oov_buckets must be at least 1, got {self.oov_buckets}")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How events are divided into training, validation and test."""

    method: SplitMethod = SplitMethod.TIME
    """`time`, `random`, or `none`: all events are for training."""

    validation_from_ms: int | None = None
    """First cut of a split by time, in milliseconds since 1970 (UTC). None: the quantile that `validation_share` and
    `test_share` imply."""

    test_from_ms: int | None = None
    """Second cut, as `validation_from_ms`."""

    validation_share: float = 0.1
    """Share of the events for validation, if no cuts are given."""

    test_share: float = 0.1
    """Share of the events for testing, if no cuts are given."""

    seed: int = 0
    """Seed of a random split."""

    def __post_init__(self) -> None:
        cuts = (self.validation_from_ms, self.test_from_ms)
        if self.method != SplitMethod.TIME and cuts != (None, None):
            raise ValueError(f"--validation-from and --test-from go with --split time, got --split {self.method}")
        if (self.validation_from_ms is None) != (self.test_from_ms is None):
            raise ValueError("give both --validation-from and --test-from, or neither")
        if None not in cuts and not self.validation_from_ms < self.test_from_ms:  # type: ignore[operator]
            found = " and ".join(format_when(cut) for cut in cuts if cut is not None)
            raise ValueError(f"--validation-from must be before --test-from, got {found}")
        shares = (self.validation_share, self.test_share)
        if not (min(shares) > 0 and sum(shares) < 1):  # rejects NaN too
            raise ValueError(f"validation and test shares must be above 0 and their sum below 1, got {shares}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2**63), got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class PropertyConfig:
    """Which item properties have a role, by name."""

    category: str = "categoryid"
    """Property with an item's category, an id of the category tree."""

    availability: str = "available"
    """Property that says whether an item is available: 1 or 0."""

    price: str = "790"
    """Property with an item's price, such as `n15360.000` or `15360.0`."""

    title: str = "title"
    """Property with an item's name for people: any text. The shop need not have this property."""

    most_frequent: int = 8
    """Number of the other properties that are kept as sets of values: those that most items have."""

    def __post_init__(self) -> None:
        if self.most_frequent < 0:
            raise ValueError(f"most_frequent must not be negative, got {self.most_frequent}")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How far a figure may be from the baseline's figure."""

    warn: float | None
    """A larger distance is logged as a warning. None: never."""

    fail: float | None
    """With a larger distance, the job fails and publishes nothing. None: never."""

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.warn, self.fail) if limit is not None]
        if not all(limit >= 0 for limit in limits):  # rejects NaN too
            raise ValueError(f"limits must be at least 0, got {limits}")


@dataclass(frozen=True, kw_only=True)
class ExpectationConfig:
    """How far a dataset may be from its `--baseline`."""

    rows: Limit = Limit(warn=0.25, fail=0.5)
    """Relative change of the number of event rows."""

    event_shares: Limit = Limit(warn=0.02, fail=0.1)
    """Largest change of an event kind's share."""

    popularity: Limit = Limit(warn=0.5, fail=None)
    """Share of the training events that would have to move to other items to make the popularities equal."""

    rejects: Limit = Limit(warn=0.001, fail=0.01)
    """Increase of the share of invalid event rows."""

    domains: Limit = Limit(warn=0.0001, fail=0.01)
    """Largest increase of the share that is invalid for one reason: an unknown event kind, an empty id, …"""

    presence: Limit = Limit(warn=0.05, fail=0.2)
    """Largest decrease of the share of items with a known category, price or availability."""

    prices: Limit = Limit(warn=0.01, fail=0.1)
    """Share of the priced items outside the baseline's price range."""

    days_behind: Limit = Limit(warn=0, fail=None)
    """Days between the last event and the baseline's later last event."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Input and settings of `prepare`; the same input and settings give the same dataset."""

    events: str
    """Glob of the event log: .csv and .csv.gz files."""

    item_properties: str | None = None
    """Glob of the item properties: .csv and .csv.gz files."""

    category_tree: str | None = None
    """Path of the category tree, one file."""

    split: SplitConfig = field(default_factory=SplitConfig)
    """How events are divided into training, validation and test."""

    max_reject_share: float = 0.01
    """Share of invalid rows, in [0, 1], above which an input is rejected and the job fails."""

    max_events_per_day: int = 200
    """Visitors with more events on one day (UTC) are robots: they are excluded from that day's split and from later
    ones."""

    visitors: VocabularyConfig = field(default_factory=VocabularyConfig)
    """The visitor vocabulary."""

    items: VocabularyConfig = field(default_factory=lambda: VocabularyConfig(min_count=0))
    """The item vocabulary."""

    categories: VocabularyConfig = field(default_factory=VocabularyConfig)
    """The category vocabulary; ids are counted by items, not by events."""

    property_values: VocabularyConfig = field(default_factory=lambda: VocabularyConfig(min_count=5, max_size=20_000))
    """The vocabulary of property values, which are also counted by items."""

    properties: PropertyConfig = field(default_factory=PropertyConfig)
    """Which item properties have a role."""

    expectations: ExpectationConfig = field(default_factory=ExpectationConfig)
    """How far the dataset may be from its `--baseline`."""

    block_rows: int = 1024
    """Approximate number of rows in a block of timelines."""

    partition_bytes: int = 16 << 20
    """Approximate number of input bytes per partition, with .gz files counted at three times their size. A partition
    becomes one shard per split."""

    num_buckets: int = 16
    """Number of quantile buckets of prices, and of the gaps between a visitor's events."""

    compress: bool = False
    """Compresses timeline shards with gzip: a third of the size, slower to read."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_reject_share <= 1:
            raise ValueError(f"--max-reject-share must be between 0 and 1, got {self.max_reject_share}")
        for name in ("max_events_per_day", "block_rows", "partition_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_buckets < 2:
            raise ValueError(f"num_buckets must be at least 2, got {self.num_buckets}")


def parse_when(text: str) -> int:
    """Parses `2015-09-01`, `2015-09-01T12:00+02:00` (UTC unless it has a zone) or `1441065600000` to ms since 1970."""
    if text.isdigit():
        when = int(text)
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is neither ISO 8601, such as 2015-09-01T00:00, nor milliseconds since 1970"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        when = round(moment.timestamp() * 1000)
    if not PLAUSIBLE_FROM_MS <= when < PLAUSIBLE_UNTIL_MS:
        raise ValueError(
            f"{text!r} is outside 2000 to 2100; give a date such as 2015-09-01, or milliseconds since 1970"
        )
    return when


def format_when(timestamp_ms: int) -> str:
    """Formats milliseconds since 1970 as ISO 8601 (UTC); `parse_when` is its exact inverse."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
