"""Rows to visitor timelines, partition by partition; all of it on whole columns.

Shapes: N rows of a partition, V its visitors.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from contract.schema import Split, SplitMethod
from contract.timelines import TimelineRows
from preprocessing import validation
from preprocessing.columns import codes, decode_columns, encode_columns, hash_ids
from preprocessing.config import SplitConfig
from preprocessing.sources.csv_files import Chunk, ParsedRows, Rejects, parse_chunk, reject_rows
from preprocessing.splits import SPLITS, assign_splits
from preprocessing.validation import Flaws

EVENT_COLUMNS = ("timestamp", "visitorid", "event", "itemid")
OPTIONAL_EVENT_COLUMNS = ("transactionid",)

MS_A_DAY = 86_400_000
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Timelines:
    """All rows of a partition: each visitor's are contiguous, in order of time, then of the files.

    visitors         [V] distinct ids, in the order of their hash, which has nothing to do with time or activity
    visitor_code     [N] places in `visitors`
    timestamp_ms     [N]
    event            [N] places in EVENT_KINDS
    items, item_code distinct item ids, and [N] places in them
    robot_from_ms    [V] when a visitor had more events on one day than a person; NEVER for people
    """

    visitors: pa.Array
    visitor_code: np.ndarray
    timestamp_ms: np.ndarray
    event: np.ndarray
    items: pa.Array
    item_code: np.ndarray
    robot_from_ms: np.ndarray

    def __len__(self) -> int:
        return len(self.timestamp_ms)


@dataclass(frozen=True)
class Cleaning:
    """What was found in a partition: exact duplicates, which are dropped, and visitors that are robots at some time."""

    duplicates: int
    robot_visitors: int


def parse_events(chunk: Chunk) -> tuple[pa.Table, Rejects, int]:
    """Event columns of the good rows, the bad ones, and the number of blank lines.

    The columns are visitor, timestamp_ms, event (a place in EVENT_KINDS), item and transaction ('' where none).
    """
    parsed = parse_chunk(chunk)
    columns = parsed.columns
    flaws = Flaws.none(len(columns))
    timestamps = validation.parse_timestamps(columns["timestamp"], flaws)
    kinds = validation.parse_events(columns["event"], flaws)
    validation.check_ids(columns["visitorid"], flaws)
    validation.check_ids(columns["itemid"], flaws)
    table = pa.table(
        {
            "visitor": columns["visitorid"],
            "timestamp_ms": timestamps,
            "event": kinds,
            "item": columns["itemid"],
            "transaction": _transactions(parsed),
        }
    )
    good = table if flaws.is_good.all() else table.filter(flaws.is_good)
    return good, reject_rows(parsed, flaws), parsed.num_blank


def assemble_timelines(table: pa.Table, max_events_per_day: int) -> tuple[Timelines, Cleaning]:
    """Sorts a partition's rows into timelines, without exact duplicates, and tells from when visitors are robots."""
    visitor_code, visitors = codes(table["visitor"])
    item_code, items = codes(table["item"])
    by_hash = np.lexsort((visitors.to_numpy(zero_copy_only=False), hash_ids(visitors)))
    rank = np.empty(len(by_hash), np.int64)
    rank[by_hash] = np.arange(len(by_hash))
    columns = {
        "visitor": rank[visitor_code],
        "timestamp_ms": table["timestamp_ms"].to_numpy(),
        "event": table["event"].to_numpy(),
        "item": item_code,
        "transaction": codes(table["transaction"])[0],
    }
    order = np.lexsort((columns["timestamp_ms"], columns["visitor"]))  # stable: ties stay in file order
    columns = {name: column[order] for name, column in columns.items()}
    is_duplicate = _find_duplicates(columns)
    columns = {name: column[~is_duplicate] for name, column in columns.items()}
    robot_from_ms = _find_robots(columns["visitor"], columns["timestamp_ms"], len(visitors), max_events_per_day)
    timelines = Timelines(
        visitors=visitors.take(by_hash),
        visitor_code=columns["visitor"],
        timestamp_ms=columns["timestamp_ms"],
        event=columns["event"],
        items=items,
        item_code=columns["item"],
        robot_from_ms=robot_from_ms,
    )
    return timelines, Cleaning(int(is_duplicate.sum()), int((robot_from_ms < NEVER).sum()))


def by_people(timelines: Timelines) -> np.ndarray:
    """[N] bool: rows of visitors that are never robots."""
    return (timelines.robot_from_ms == NEVER)[timelines.visitor_code]


def split_timelines(
    timelines: Timelines, cuts: tuple[int, int] | None, config: SplitConfig
) -> tuple[Timelines, np.ndarray]:
    """The rows that take part in some split, and [their number] int8: the place in SPLITS of each.

    A visitor who turns out to be a robot is left out from the split in which that shows on: what happens after a cut
    changes nothing before it. Without a split by time there is no before.
    """
    splits = split_rows(timelines, cuts, config)
    ends = np.array([*cuts, NEVER]) if cuts else np.full(len(SPLITS), NEVER)
    keep = timelines.robot_from_ms[timelines.visitor_code] >= ends[splits]
    if keep.all():
        return timelines, splits
    present, code = np.unique(timelines.visitor_code[keep], return_inverse=True)
    kept = Timelines(
        visitors=timelines.visitors.take(present),
        visitor_code=code,
        timestamp_ms=timelines.timestamp_ms[keep],
        event=timelines.event[keep],
        items=timelines.items,
        item_code=timelines.item_code[keep],
        robot_from_ms=timelines.robot_from_ms[present],
    )
    return kept, splits[keep]


def split_rows(timelines: Timelines, cuts: tuple[int, int] | None, config: SplitConfig) -> np.ndarray:
    """[N] int8: the place in SPLITS of each row."""
    if config.method != SplitMethod.RANDOM:
        return assign_splits(timelines.timestamp_ms, np.empty(0, np.uint64), cuts, config)
    row = pd.DataFrame(
        {
            "visitor": hash_ids(timelines.visitors)[timelines.visitor_code],
            "timestamp_ms": timelines.timestamp_ms,
            "event": timelines.event,
            "item": hash_ids(timelines.items)[timelines.item_code],
            "seed": np.full(len(timelines), config.seed, np.int64),
        }
    )
    hashes = pd.util.hash_pandas_object(row, index=False).to_numpy()
    return assign_splits(timelines.timestamp_ms, hashes, cuts, config)


def select_split(
    timelines: Timelines, splits: np.ndarray, split: Split, visitor_index: np.ndarray, item_index: np.ndarray
) -> TimelineRows:
    """The rows of one split, and among them, in order of time, what the same visitors did in earlier splits.

    Of a random split, context may be later than a target: one more way in which it leaks.

    Args:
      timelines: of a partition.
      splits: [N] places in SPLITS.
      split: which one.
      visitor_index: [V] vocabulary indices of `timelines.visitors`.
      item_index: vocabulary indices of `timelines.items`.
    """
    number = SPLITS.index(split)
    is_target = splits == number
    has_target = np.zeros(len(timelines.visitors), bool)
    has_target[timelines.visitor_code[is_target]] = True
    keep = np.flatnonzero((splits <= number) & has_target[timelines.visitor_code])
    code = timelines.visitor_code[keep]
    starts = np.flatnonzero(np.r_[True, code[1:] != code[:-1]]) if len(code) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(code)))
    return TimelineRows(
        visitor=visitor_index[code],
        position=np.arange(len(code)) - np.repeat(starts, lengths),
        item=item_index[timelines.item_code[keep]],
        event=timelines.event[keep].astype(np.int64),
        timestamp_ms=timelines.timestamp_ms[keep],
        is_target=is_target[keep].astype(np.int64),
    )


def gaps_by_timeline(timelines: Timelines, rows: np.ndarray) -> pa.Array:
    """Seconds between neighbouring events of a timeline, a list of float32 a visitor, of a row mask [N]."""
    code, times = timelines.visitor_code[rows], timelines.timestamp_ms[rows]
    same_visitor = code[1:] == code[:-1]
    gaps = (np.diff(times)[same_visitor] / 1000).astype(np.float32)
    counts = np.bincount(code[1:][same_visitor], minlength=len(timelines.visitors))
    offsets = pa.array(np.r_[0, np.cumsum(counts)], pa.int64())
    return pa.LargeListArray.from_arrays(offsets, pa.array(gaps))


def encode_timelines(timelines: Timelines) -> bytes:
    """Bytes of a partition's timelines, for the intermediate files between two pipelines."""
    table = pa.table(
        {
            "visitor": pa.DictionaryArray.from_arrays(pa.array(timelines.visitor_code, pa.int32()), timelines.visitors),
            "timestamp_ms": timelines.timestamp_ms,
            "event": timelines.event,
            "item": pa.DictionaryArray.from_arrays(pa.array(timelines.item_code, pa.int32()), timelines.items),
            "robot_from_ms": timelines.robot_from_ms[timelines.visitor_code],
        }
    )
    return encode_columns(table)


def decode_timelines(encoded: bytes) -> Timelines:
    """The partition of `encode_timelines`."""
    table = decode_columns(encoded)
    visitor, item = (table[name].combine_chunks() for name in ("visitor", "item"))
    visitor_code = visitor.indices.to_numpy().astype(np.int64)
    robot_from_ms = np.full(len(visitor.dictionary), NEVER)
    robot_from_ms[visitor_code] = table["robot_from_ms"].to_numpy()
    return Timelines(
        visitors=visitor.dictionary,
        visitor_code=visitor_code,
        timestamp_ms=table["timestamp_ms"].to_numpy(),
        event=table["event"].to_numpy(),
        items=item.dictionary,
        item_code=item.indices.to_numpy().astype(np.int64),
        robot_from_ms=robot_from_ms,
    )


def empty_timelines() -> Timelines:
    """A partition without a visitor."""
    none, no_ids = np.empty(0, np.int64), pa.array([], pa.string())
    return Timelines(no_ids, none, none, none.astype(np.int8), no_ids, none, none)


def _transactions(parsed: ParsedRows) -> pa.Array:
    if "transactionid" in parsed.columns.column_names:
        return parsed.columns["transactionid"]
    return pa.repeat("", len(parsed.columns))


def _find_duplicates(columns: dict[str, np.ndarray]) -> np.ndarray:
    """[N] bool: rows equal in every column to an earlier one; only rows of one visitor and time can be."""
    same = np.ones(len(columns["visitor"]), bool)
    for name in ("visitor", "timestamp_ms"):
        same[1:] &= columns[name][1:] == columns[name][:-1]
    same[:1] = False
    in_tie = same.copy()
    in_tie[:-1] |= same[1:]
    rows = np.flatnonzero(in_tie)
    is_duplicate = np.zeros(len(same), bool)
    is_duplicate[rows] = pd.DataFrame({name: column[rows] for name, column in columns.items()}).duplicated()
    return is_duplicate


def _find_robots(
    visitor: np.ndarray, timestamp_ms: np.ndarray, num_visitors: int, max_events_per_day: int
) -> np.ndarray:
    """[V] int64: when each visitor first had more events on a day (UTC) than allowed; NEVER where that never was.

    Args:
      visitor, timestamp_ms: [N] of rows in the order of timelines.
    """
    robot_from_ms = np.full(num_visitors, NEVER)
    day = timestamp_ms // MS_A_DAY
    # the row that many places before is of the same visitor and day: this row is one too many
    over = (
        np.flatnonzero(
            (visitor[max_events_per_day:] == visitor[:-max_events_per_day])
            & (day[max_events_per_day:] == day[:-max_events_per_day])
        )
        + max_events_per_day
    )
    np.minimum.at(robot_from_ms, visitor[over], timestamp_ms[over])
    return robot_from_ms
