"""The settings of `prepare`, checked; what they mean is said once, here."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from contract.schema import SplitMethod

# Outside of this a number is hardly a time in milliseconds: seconds give 1970, microseconds the year 47,000.
PLAUSIBLE_FROM_MS = 946_684_800_000  # 2000-01-01
PLAUSIBLE_UNTIL_MS = 4_102_444_800_000  # 2100-01-01


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which ids get an index of their own.

    min_count      ids seen less often in training share the out-of-vocabulary buckets; 0, for items: those that only
                   their properties tell of get an index too, after all others, so that they can be recommended
    max_size       the most frequent ones are kept; None: all
    oov_buckets    indices after the vocabulary's for all other ids, chosen by hash
    """

    min_count: int = 1
    max_size: int | None = None
    oov_buckets: int = 1

    def __post_init__(self) -> None:
        if self.min_count < 0:
            raise ValueError(f"min_count must not be negative, got {self.min_count}")
        if self.max_size is not None and self.max_size < 1:
            raise ValueError(f"max_size must be at least 1, got {self.max_size}")
        if self.oov_buckets < 1:
            raise ValueError(f"oov_buckets must be at least 1, got {self.oov_buckets}")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How events are divided.

    method                             by time, at random, or not at all
    validation_from_ms, test_from_ms   the cuts, since 1970 (UTC); None: at the quantiles
    validation_share, test_share       the shares of events, by time or at random, that validate and test
    seed                               of the random split
    """

    method: SplitMethod = SplitMethod.TIME
    validation_from_ms: int | None = None
    test_from_ms: int | None = None
    validation_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        given = (self.validation_from_ms, self.test_from_ms)
        if self.method != SplitMethod.TIME and given != (None, None):
            raise ValueError(f"--validation-from and --test-from go with --split time, got --split {self.method}")
        if (self.validation_from_ms is None) != (self.test_from_ms is None):
            raise ValueError("give both --validation-from and --test-from, or neither")
        if None not in given and not self.validation_from_ms < self.test_from_ms:  # type: ignore[operator]
            when = " and ".join(format_when(cut) for cut in given if cut is not None)
            raise ValueError(f"--validation-from must lie before --test-from, got {when}")
        shares = (self.validation_share, self.test_share)
        if not (min(shares) > 0 and sum(shares) < 1):  # so that NaN is refused too
            raise ValueError(f"validation and test shares must be above 0 and leave a rest to train, got {shares}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in [0, 2**63), got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class PropertyConfig:
    """Which item properties mean what.

    category, availability, price   names of the properties with these roles
    most_frequent                   how many of the other properties, by rows, are kept as value sets
    """

    category: str = "categoryid"
    availability: str = "available"
    price: str = "790"
    most_frequent: int = 8

    def __post_init__(self) -> None:
        if self.most_frequent < 0:
            raise ValueError(f"most_frequent must not be negative, got {self.most_frequent}")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How far a figure may be from the baseline's: above `warn` it is told, above `fail` nothing is published.

    None: any distance is passed over.
    """

    warn: float | None
    fail: float | None

    def __post_init__(self) -> None:
        given = [limit for limit in (self.warn, self.fail) if limit is not None]
        if not all(limit >= 0 for limit in given):  # so that NaN is refused too
            raise ValueError(f"limits must be at least 0, got {given}")


@dataclass(frozen=True, kw_only=True)
class ExpectationConfig:
    """How far a dataset may be from its `--baseline`.

    rows          change of the rows read, as a share of the baseline's
    event_shares  greatest change of a kind's share of the events
    popularity    share of the training events that would have to move to other items for popularities to be equal
    rejects       rise of the share of event rows that are bad
    domains       greatest rise of the share that is bad for one reason: an unknown kind of event, an empty id, …
    presence      greatest fall of the share of items of which category, price or availability is told
    prices        share of the priced items outside of the baseline's least and greatest price
    days_behind   days by which the last event lies before the baseline's
    """

    rows: Limit = Limit(warn=0.25, fail=0.5)
    event_shares: Limit = Limit(warn=0.02, fail=0.1)
    popularity: Limit = Limit(warn=0.5, fail=None)
    rejects: Limit = Limit(warn=0.001, fail=0.01)
    domains: Limit = Limit(warn=0.0001, fail=0.01)
    presence: Limit = Limit(warn=0.05, fail=0.2)
    prices: Limit = Limit(warn=0.01, fail=0.1)
    days_behind: Limit = Limit(warn=0, fail=None)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Everything that decides what `prepare` makes of its input.

    events, item_properties    globs of .csv and .csv.gz files
    category_tree              one file
    split                      how events are divided
    max_reject_share           in [0, 1]: above it, of the rows of any input, the job fails
    max_events_per_day         visitors with more events on a day (UTC) are robots, left out where it shows
    visitors … property_values which ids each vocabulary holds
    properties                 which item properties mean what
    expectations               how far the dataset may be from the one it is compared with
    block_rows                 rows of a timeline block, about
    partition_bytes            input bytes a partition, about (3 for each of a .gz file); it makes a shard a split
    num_buckets                quantile buckets of prices and of the gaps between a visitor's events
    compress                   timeline shards with gzip: a third of the size, slower to train from
    """

    events: str
    item_properties: str | None = None
    category_tree: str | None = None
    split: SplitConfig = field(default_factory=SplitConfig)
    max_reject_share: float = 0.01
    max_events_per_day: int = 200
    visitors: VocabularyConfig = field(default_factory=VocabularyConfig)
    items: VocabularyConfig = field(default_factory=lambda: VocabularyConfig(min_count=0))
    categories: VocabularyConfig = field(default_factory=VocabularyConfig)
    property_values: VocabularyConfig = field(default_factory=lambda: VocabularyConfig(min_count=5, max_size=20_000))
    properties: PropertyConfig = field(default_factory=PropertyConfig)
    expectations: ExpectationConfig = field(default_factory=ExpectationConfig)
    block_rows: int = 1024
    partition_bytes: int = 16 << 20
    num_buckets: int = 16
    compress: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_reject_share <= 1:
            raise ValueError(f"--max-reject-share must lie between 0 and 1, got {self.max_reject_share}")
        for name in ("max_events_per_day", "block_rows", "partition_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_buckets < 2:
            raise ValueError(f"num_buckets must be at least 2, got {self.num_buckets}")


def parse_when(text: str) -> int:
    """Milliseconds since 1970 of `2015-09-01`, `2015-09-01T12:00+02:00` (without a zone: UTC) or `1441065600000`."""
    if text.isdigit():
        when = int(text)
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is neither ISO 8601, as 2015-09-01T00:00, nor milliseconds since 1970"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        when = round(moment.timestamp() * 1000)
    if not PLAUSIBLE_FROM_MS <= when < PLAUSIBLE_UNTIL_MS:
        raise ValueError(f"{text!r} lies outside 2000 to 2100; write a date as 2015-09-01, a number in milliseconds")
    return when


def format_when(timestamp_ms: int) -> str:
    """ISO 8601 (UTC) of milliseconds since 1970, in a form that `parse_when` takes back exactly."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
