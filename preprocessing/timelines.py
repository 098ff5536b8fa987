"""Cleans the events of a partition, and assigns the timelines of its visitors to splits. Works on whole columns.

Shapes: N rows and V visitors of a partition.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from contract.schema import Split, SplitMethod
from contract.timelines import TimelineRows
from preprocessing.columns import EncodedTable, decode_columns, encode_columns, encode_strings, hash_ids
from preprocessing.config import SplitConfig
from preprocessing.splits import SPLITS, Cuts, assign_splits

MS_PER_DAY = 86_400_000
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Timelines:
    """The events of a partition, sorted by visitor, then time, then order in the files."""

    visitors: pa.Array
    """[V] distinct visitor ids, sorted by hash. This order does not depend on time or activity."""
    visitor_code: np.ndarray
    """[N] index of the visitor in `visitors`."""
    timestamp_ms: np.ndarray
    """[N] milliseconds since 1970."""
    event: np.ndarray
    """[N] index of the event kind."""
    items: pa.Array
    """Distinct item ids."""
    item_code: np.ndarray
    """[N] index of the item in `items`."""
    weight: np.ndarray
    """[N] float32 weight of the event, 0 or greater."""
    robot_from_ms: np.ndarray
    """[V] time of the first event with which the visitor exceeds the daily limit, in milliseconds since 1970. NEVER if
    the visitor is not a robot."""

    def __len__(self) -> int:
        return len(self.timestamp_ms)


class SplitTimelines(NamedTuple):
    """The rows of a partition, without the rows of excluded robots, and the split of each row."""

    timelines: Timelines
    """The rows that are not excluded."""
    splits: np.ndarray
    """[N] int8 index of each row's split in SPLITS."""
    robot_events: int
    """Number of rows that were excluded because their visitors are robots."""


@dataclass(frozen=True)
class Cleaning:
    """Counts of duplicates and robots in a partition."""

    duplicates: int
    """Number of exact duplicates that were dropped."""
    robot_visitors: int
    """Number of visitors who exceed the daily limit of events on at least one day (UTC)."""


def assemble_timelines(
    table: pa.Table, max_events_per_day: int, *, keep_repeats: bool = False
) -> tuple[Timelines, Cleaning]:
    """Sorts the rows of a partition into timelines, drops duplicates, and detects robots.

    Returns the timelines, including those of robots, and the counts of duplicates and robots.

    Args:
      table: valid events in file order, with the columns visitor, timestamp_ms, event, item, transaction and weight.
      max_events_per_day: a visitor with more events on a day (UTC) is a robot.
      keep_repeats: whether rows that are equal in all columns are kept.
    """
    visitor_code, visitors = encode_strings(table["visitor"])
    item_code, items = encode_strings(table["item"])
    by_hash = np.lexsort((visitors.to_numpy(zero_copy_only=False), hash_ids(visitors)))
    rank = np.empty(len(by_hash), np.int64)
    rank[by_hash] = np.arange(len(by_hash))
    columns = {
        "visitor": rank[visitor_code],
        "timestamp_ms": table["timestamp_ms"].to_numpy(),
        "event": table["event"].to_numpy(),
        "item": item_code,
        "transaction": encode_strings(table["transaction"])[0],
        "weight": table["weight"].to_numpy(),
    }
    order = np.lexsort((columns["timestamp_ms"], columns["visitor"]))  # stable: ties stay in file order
    columns = {name: column[order] for name, column in columns.items()}
    is_duplicate = np.zeros(len(order), bool) if keep_repeats else _find_duplicates(columns)
    columns = {name: column[~is_duplicate] for name, column in columns.items()}
    robot_from_ms = _find_robots(columns["visitor"], columns["timestamp_ms"], len(visitors), max_events_per_day)
    timelines = Timelines(
        visitors=visitors.take(by_hash),
        visitor_code=columns["visitor"],
        timestamp_ms=columns["timestamp_ms"],
        event=columns["event"],
        items=items,
        item_code=columns["item"],
        weight=columns["weight"],
        robot_from_ms=robot_from_ms,
    )
    return timelines, Cleaning(int(is_duplicate.sum()), int((robot_from_ms < NEVER).sum()))


def find_human_rows(timelines: Timelines) -> np.ndarray:
    """Returns a mask [N] of the rows of visitors who are not robots."""
    return (timelines.robot_from_ms == NEVER)[timelines.visitor_code]


def split_timelines(timelines: Timelines, cuts: Cuts | None, config: SplitConfig) -> SplitTimelines:
    """Assigns the rows to splits and excludes robots.

    In a split by time, a robot is excluded from the split in which it first exceeds the daily limit, and from later
    ones. With other split methods, it is excluded from all splits. `cuts` is None unless the split is by time.
    """
    splits = split_rows(timelines, cuts, config)
    ends = np.full(len(SPLITS), NEVER)
    if cuts is not None:
        ends[:-1] = cuts.validation_from_ms, cuts.test_from_ms
    keep = timelines.robot_from_ms[timelines.visitor_code] >= ends[splits]
    if keep.all():
        return SplitTimelines(timelines, splits, robot_events=0)
    present, code = np.unique(timelines.visitor_code[keep], return_inverse=True)
    kept = Timelines(
        visitors=timelines.visitors.take(present),
        visitor_code=code,
        timestamp_ms=timelines.timestamp_ms[keep],
        event=timelines.event[keep],
        items=timelines.items,
        item_code=timelines.item_code[keep],
        weight=timelines.weight[keep],
        robot_from_ms=timelines.robot_from_ms[present],
    )
    return SplitTimelines(kept, splits[keep], robot_events=len(timelines) - len(kept))


def split_rows(timelines: Timelines, cuts: Cuts | None, config: SplitConfig) -> np.ndarray:
    """Assigns each row, including the rows of robots, to a split: an index in SPLITS, [N] int8.

    `cuts` is None unless the split is by time.
    """
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
    """Selects the target rows of a split, and the context rows of the same visitors.

    Target rows are in `split`. Context rows are in earlier splits, but may have later times if the splits are random.

    Args:
      timelines: rows of a partition, without robots.
      splits: [N] index of each row's split in SPLITS.
      visitor_index: [V] vocabulary index of each visitor.
      item_index: vocabulary index of each item.
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
        weight=timelines.weight[keep],
    )


def select_unknown_ids(
    timelines: Timelines, splits: np.ndarray, split: Split, visitor_index: np.ndarray, num_known: int
) -> list[str]:
    """Returns the visitor id of each timeline that `select_split` returns; "" for visitors in the vocabulary.

    `num_known` is the size of the visitor vocabulary; the other arguments are those of `select_split`.
    """
    selected = np.unique(timelines.visitor_code[splits == SPLITS.index(split)])
    ids = timelines.visitors.take(pa.array(selected))
    return pc.if_else(pa.array(visitor_index[selected] < num_known), "", ids).to_pylist()


def compute_gaps(timelines: Timelines, rows: np.ndarray) -> np.ndarray:
    """Returns the seconds between consecutive events of the same visitor, float32.

    `rows` is a mask [N] of the rows to use.
    """
    code, times = timelines.visitor_code[rows], timelines.timestamp_ms[rows]
    return (np.diff(times)[code[1:] == code[:-1]] / 1000).astype(np.float32)


def encode_timelines(timelines: Timelines) -> EncodedTable:
    """Encodes the timelines of a partition as bytes."""
    table = pa.table(
        {
            "visitor": pa.DictionaryArray.from_arrays(pa.array(timelines.visitor_code, pa.int32()), timelines.visitors),
            "timestamp_ms": timelines.timestamp_ms,
            "event": timelines.event,
            "item": pa.DictionaryArray.from_arrays(pa.array(timelines.item_code, pa.int32()), timelines.items),
            "weight": timelines.weight,
            "robot_from_ms": timelines.robot_from_ms[timelines.visitor_code],
        }
    )
    return encode_columns(table)


def decode_timelines(encoded: EncodedTable) -> Timelines:
    """Decodes the result of `encode_timelines`."""
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
        weight=table["weight"].to_numpy(),
        robot_from_ms=robot_from_ms,
    )


def empty_timelines() -> Timelines:
    """Returns the timelines of a partition without visitors."""
    none, no_ids = np.empty(0, np.int64), pa.array([], pa.string())
    return Timelines(no_ids, none, none, none.astype(np.int8), no_ids, none, none.astype(np.float32), none)


def _find_duplicates(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Returns a mask [N] of the rows that equal an earlier row.

    The rows are sorted by visitor, then by time.
    """
    # only rows of the same visitor and time, which are adjacent, can be equal
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
    """Returns when each visitor first exceeds the daily limit: ms since 1970, or NEVER, [V]. Rows must be sorted."""
    robot_from_ms = np.full(num_visitors, NEVER)
    day = timestamp_ms // MS_PER_DAY
    # if the row `max_events_per_day` rows earlier has the same visitor and day, this row is above the limit
    over = (
        np.flatnonzero(
            (visitor[max_events_per_day:] == visitor[:-max_events_per_day])
            & (day[max_events_per_day:] == day[:-max_events_per_day])
        )
        + max_events_per_day
    )
    np.minimum.at(robot_from_ms, visitor[over], timestamp_ms[over])
    return robot_from_ms
