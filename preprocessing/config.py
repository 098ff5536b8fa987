"""Settings of `prepare` and their checks."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from common.settings import check
from contract.schema import SplitMethod
from preprocessing.kinds import KindConfig

# outside this range a time is probably in another unit: seconds up to 2100, read as milliseconds, are before
# 1970-02-18; microseconds give the year 47,000
PLAUSIBLE_FROM_MS = 4_147_200_000  # 1970-02-18
PLAUSIBLE_UNTIL_MS = 4_102_444_800_000  # 2100-01-01


@dataclass(frozen=True, kw_only=True)
class FormatConfig:
    """How the files of an input are read. By default, the format is detected from the files."""

    format: Literal["auto", "csv", "parquet", "jsonl"] = "auto"
    """`csv`, `parquet` or `jsonl`. `auto`: detected from the content of each file."""

    separator: str | None = None
    """Separator of CSV fields. None: detected from the header among comma, semicolon, tab and bar."""

    encoding: str | None = None
    """Encoding of text files, such as `cp1252`. None: UTF-8, or UTF-16 in files with its byte order mark."""

    columns: tuple[str, ...] = ()
    """Column names of CSV files without a header line."""

    def __post_init__(self) -> None:
        is_valid = self.separator is None or len(self.separator.encode()) == 1
        check(is_valid, "separator", repr(self.separator), "one ASCII character")
        is_known = self.encoding is None or _is_encoding(self.encoding)
        check(is_known, "encoding", repr(self.encoding), "the name of an encoding, such as utf-8 or cp1252")


@dataclass(frozen=True, kw_only=True)
class TimeConfig:
    """How times of events are read."""

    unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = "auto"
    """Unit of numeric times since 1970, or `iso` for ISO 8601. `auto`: the only unit that gives times from
    1990 to 2100."""

    format: str | None = None
    """A format of Python's `strptime`, such as `%d.%m.%Y %H:%M:%S`. None: numbers or ISO 8601."""

    zone: str = "UTC"
    """Time zone of times that do not name a zone, such as `Europe/Berlin`."""

    def __post_init__(self) -> None:
        rule = "the name of a time zone, such as UTC or Europe/Berlin"
        check(_is_time_zone(self.zone), "zone", repr(self.zone), rule)


@dataclass(frozen=True, kw_only=True)
class EventColumns:
    """The source of each field of an event: a column of the log, a path such as `items[].id`, or a quoted constant."""

    visitor: str = "visitorid"
    """Id of the visitor, the customer or the session."""

    item: str = "itemid"
    """Id of the item."""

    time: str = "timestamp"
    """Time of the event."""

    kind: str = "event"
    """Event kind, such as `view`. If the log has only one kind, give the kind as a constant: `'transaction'`."""

    transaction: str | None = None
    """Id of the purchase. Rows that differ only in this id are separate events. None: the column `transactionid`,
    if the log has it."""

    weight: str | None = None
    """Weight of the event in training, such as a quantity or a rating: a number from 0 to 1e9. It is multiplied by the
    weight of the event's kind. A missing weight is 1. None: all weights are 1."""


@dataclass(frozen=True, kw_only=True)
class ItemTableConfig:
    """A table with one row per item, instead of item properties and a category tree.

    A column is named by its path: `price`, or `offer.price` for a field of a nested column.
    """

    files: str | None = None
    """Glob of the table: CSV, Parquet or JSON Lines files. None: there is no table."""

    format: FormatConfig = field(default_factory=FormatConfig)
    """How the files are read. Unlike in an event log, quoted fields of CSV may contain line breaks."""

    id: str = "itemid"
    """Column with the item's id."""

    title: str | None = None
    """Column with the item's name, as people read it."""

    category: tuple[str, ...] = ()
    """Columns of the category path, from the root down, or one column with whole paths; see `separator`."""

    separator: str = ">"
    """Separator of categories in a column with whole paths."""

    price: str | None = None
    """Column with the price."""

    availability: str | None = None
    """Column with the availability of an item: 1 or 0, true or false, yes or no, in stock or out of stock."""

    attributes: tuple[str, ...] = ()
    """Other columns that describe the item. They become features of the model `nn`: a number becomes a bucket (five
    buckets per power of ten), and a text becomes one value or one value per word; see `max_words`."""

    max_words: int = 4
    """Maximum number of words in a text that becomes one value. If a text in the first rows has more words, each text
    of the attribute becomes one value per word."""


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Selects the ids that get their own index in a vocabulary."""

    min_count: int = 1
    """Ids with fewer training events share the out-of-vocabulary buckets. With 0, items that occur only in the item
    properties get an index too, after all others, so that they can be recommended."""

    max_size: int | None = None
    """Maximum number of ids. The most frequent ids are kept. None: no limit."""

    oov_buckets: int = 1
    """Number of extra indices for ids outside the vocabulary. A hash assigns each id to one of these indices."""

    def __post_init__(self) -> None:
        check(self.min_count >= 0, "min_count", self.min_count, "at least 0")
        check(self.max_size is None or self.max_size >= 1, "max_size", self.max_size, "at least 1, or none")
        check(self.oov_buckets >= 1, "oov_buckets", self.oov_buckets, "at least 1")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How events are divided into training, validation and test."""

    method: SplitMethod = SplitMethod.TIME
    """`time`, `random`, or `none` (all events are for training)."""

    validation_from_ms: int | None = None
    """Time at which validation starts in a split by time, in milliseconds since 1970 (UTC). None: a quantile of the
    event times, which `validation_share` and `test_share` determine."""

    test_from_ms: int | None = None
    """Time at which the test split starts, like `validation_from_ms`."""

    validation_share: float = 0.1
    """Share of the events for validation, if `validation_from_ms` is None."""

    test_share: float = 0.1
    """Share of the events for testing, if `test_from_ms` is None."""

    seed: int = 0
    """Seed of a random split."""

    def __post_init__(self) -> None:
        cuts = (self.validation_from_ms, self.test_from_ms)
        if self.method != SplitMethod.TIME and cuts != (None, None):
            raise ValueError(f"--validation-from and --test-from need --split time, got --split {self.method}")
        if (self.validation_from_ms is None) != (self.test_from_ms is None):
            raise ValueError("give both --validation-from and --test-from, or neither")
        if None not in cuts and not self.validation_from_ms < self.test_from_ms:  # type: ignore[operator]
            found = " and ".join(format_when(cut) for cut in cuts if cut is not None)
            raise ValueError(f"--validation-from must be before --test-from, got {found}")
        shares = (self.validation_share, self.test_share)
        if not (min(shares) > 0 and sum(shares) < 1):  # rejects NaN too
            raise ValueError(
                f"split.validation_share and split.test_share must be above 0 and their sum below 1, got {shares}"
            )
        check(0 <= self.seed < 2**63, "seed", self.seed, "in [0, 2**63)")


@dataclass(frozen=True, kw_only=True)
class PropertyConfig:
    """Names of the item properties that have a special role, such as the price."""

    category: str = "categoryid"
    """Property with an item's category, an id of the category tree."""

    availability: str = "available"
    """Property with an item's availability: 1 or 0."""

    price: str = "790"
    """Property with an item's price, such as `n15360.000` or `15360.0`."""

    title: str = "title"
    """Property with an item's name, as people read it. The shop may lack this property."""

    most_frequent: int = 8
    """Number of properties to keep in addition to those with a role: the properties that most items have. For each of
    these properties, an item has a set of values."""

    def __post_init__(self) -> None:
        check(self.most_frequent >= 0, "most_frequent", self.most_frequent, "at least 0")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Limits of the distance between a figure of the new dataset and the same figure of the baseline."""

    warn: float | None
    """Distance above which a warning is logged. None: never."""

    fail: float | None
    """Distance above which the job fails and publishes nothing. None: never."""

    def __post_init__(self) -> None:
        for name in ("warn", "fail"):
            limit = getattr(self, name)
            check(limit is None or limit >= 0, name, limit, "at least 0, or none")  # rejects NaN too


@dataclass(frozen=True, kw_only=True)
class ExpectationConfig:
    """Limits of the distances between a dataset and its baseline, an earlier dataset given with `--baseline`."""

    rows: Limit = Limit(warn=0.25, fail=0.5)
    """Relative change of the number of event rows."""

    event_shares: Limit = Limit(warn=0.02, fail=0.1)
    """Largest change of the share of an event kind."""

    popularity: Limit = Limit(warn=0.5, fail=None)
    """Total variation distance, from 0 to 1, between the popularity distributions of items in the two datasets."""

    rejects: Limit = Limit(warn=0.001, fail=0.01)
    """Increase of the share of invalid event rows."""

    domains: Limit = Limit(warn=0.0001, fail=0.01)
    """Largest increase of the share of event rows that are invalid for one reason, such as an unknown event kind."""

    presence: Limit = Limit(warn=0.05, fail=0.2)
    """Largest decrease of the share of items with a known category, price or availability."""

    prices: Limit = Limit(warn=0.01, fail=0.1)
    """Share of the priced items outside the baseline's price range."""

    days_behind: Limit = Limit(warn=0, fail=None)
    """Number of days from the last event of this dataset to the last event of the baseline."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Input and settings of `prepare`. The same input and settings give the same dataset."""

    events: str
    """Glob of the event log: CSV (perhaps compressed), Parquet or JSON Lines files, or a directory of them."""

    events_format: FormatConfig = field(default_factory=FormatConfig)
    """How the files of the event log are read."""

    columns: EventColumns = field(default_factory=EventColumns)
    """The columns of the event log that contain the visitor, the item, the time and the kind of an event."""

    where: tuple[str, ...] = ()
    """Conditions that all events must meet, such as `Quantity > 0`. Other rows are counted and dropped."""

    time: TimeConfig = field(default_factory=TimeConfig)
    """How times of events are read."""

    kinds: KindConfig = field(default_factory=KindConfig)
    """The event kinds of the shop."""

    keep_repeats: bool | None = None
    """Whether rows that are equal in all mapped columns are separate events. None: they are separate events only if
    `columns.kind` is a constant, because two equal rows in a log of purchases are two purchases."""

    item_properties: str | None = None
    """Glob of the item properties: files with the columns timestamp (in ms), itemid, property and value."""

    category_tree: str | None = None
    """Glob of the category tree: files with the columns categoryid and parentid."""

    item_table: ItemTableConfig = field(default_factory=ItemTableConfig)
    """A table with one row per item, instead of item properties and a category tree."""

    split: SplitConfig = field(default_factory=SplitConfig)
    """How events are divided into training, validation and test."""

    max_reject_share: float = 0.01
    """Share of invalid rows, in [0, 1], above which an input is rejected and the job fails."""

    max_events_per_day: int = 200
    """Visitors with more events on one day (UTC) are treated as robots, and excluded from the split that contains the
    day and from later splits."""

    visitors: VocabularyConfig = field(default_factory=VocabularyConfig)
    """The visitor vocabulary."""

    items: VocabularyConfig = field(default_factory=lambda: VocabularyConfig(min_count=0))
    """The item vocabulary."""

    categories: VocabularyConfig = field(default_factory=VocabularyConfig)
    """The category vocabulary. The frequency of a category is its number of items, not of events."""

    property_values: VocabularyConfig = field(default_factory=lambda: VocabularyConfig(min_count=5, max_size=20_000))
    """The vocabulary of property values. The frequency of a value is the number of items that have it."""

    properties: PropertyConfig = field(default_factory=PropertyConfig)
    """Names of the item properties that have a special role."""

    expectations: ExpectationConfig = field(default_factory=ExpectationConfig)
    """Limits of the distances between the dataset and its `--baseline`."""

    block_rows: int = 1024
    """Approximate number of rows in a block of timelines."""

    partition_bytes: int = 16 << 20
    """Approximate number of input bytes per partition. Compressed files and Parquet files count as three
    times their size. Each partition becomes one shard per split."""

    num_buckets: int = 16
    """Number of quantile buckets of prices, and of the gaps between a visitor's events."""

    compress: bool = False
    """Compresses timeline shards with gzip, to about a third of their size. Compressed shards are slower to read."""

    def __post_init__(self) -> None:
        if self.item_table.files and (self.item_properties or self.category_tree):
            raise ValueError("give either item_table.files, or item_properties with a category_tree; not both")
        if not 0 <= self.max_reject_share <= 1:
            raise ValueError(f"--max-reject-share must be between 0 and 1, got {self.max_reject_share}")
        for name in ("max_events_per_day", "block_rows", "partition_bytes"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        check(self.num_buckets >= 2, "num_buckets", self.num_buckets, "at least 2")


def _is_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, ValueError):  # such as a name with NUL
        return False
    return True


def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return False
    return True


def parse_when(text: str) -> int:
    """Parses a time to milliseconds since 1970.

    Args:
      text: ISO 8601 (UTC if it has no zone), or milliseconds since 1970.

    Raises:
      ValueError: the text is not a time, or the time is before 1970-02-18 or after 2099.
    """
    if text.isdigit():
        when = int(text)
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is not a time; write ISO 8601, such as 2015-09-01T00:00, or milliseconds since 1970"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        when = round(moment.timestamp() * 1000)
    if not PLAUSIBLE_FROM_MS <= when < PLAUSIBLE_UNTIL_MS:
        raise ValueError(
            f"{text!r} is not between 1970-02-18 and 2100; give a date such as 2015-09-01, or milliseconds since 1970"
        )
    return when


def format_when(timestamp_ms: int) -> str:
    """Formats milliseconds since 1970 as ISO 8601 (UTC), which `parse_when` reads."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
