"""Builds vocabularies, most frequent ids first, and converts columns of ids to vocabulary indices.

The TF-Transform graph assigns the same indices. A test compares them.

Shapes: N ids, V vocabulary entries.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from common import storage
from contract.layout import DatasetLayout
from contract.manifest import VocabularyInfo
from contract.schema import Vocabulary
from preprocessing.columns import (
    EncodedTable,
    assign_partitions,
    decode_columns,
    encode_columns,
    sort_by_count,
    split_by_partition,
)
from preprocessing.config import VocabularyConfig
from preprocessing.timelines import Timelines
from preprocessing.workspace import Workspace, read_table, write_table


def kind_columns(num_kinds: int) -> list[str]:
    """Returns the column names `kind_0`, `kind_1` and so on, one per event kind."""
    return [f"kind_{code}" for code in range(num_kinds)]


def stack_kinds(counts: pa.Table) -> np.ndarray:
    """Returns the columns `kind_0`, `kind_1` and so on as a matrix, [N, K] int64."""
    num_kinds = sum(name.startswith("kind_") for name in counts.column_names)
    return np.stack([counts[name].to_numpy() for name in kind_columns(num_kinds)], axis=1)


def count_items(timelines: Timelines, rows: np.ndarray, num_kinds: int) -> pa.Table:
    """Counts the events of each item. Omits items without events.

    `rows` is a mask of the rows to count. Returns the columns id, count, first_seen_ms and last_seen_ms (milliseconds
    since 1970), and those of `kind_columns`.
    """
    item, event, times = timelines.item_code[rows], timelines.event[rows], timelines.timestamp_ms[rows]
    size = len(timelines.items)
    kinds = np.bincount(item * num_kinds + event, minlength=size * num_kinds).reshape(size, num_kinds)
    first, last = np.full(size, np.iinfo(np.int64).max), np.zeros(size, np.int64)
    np.minimum.at(first, item, times)
    np.maximum.at(last, item, times)
    counts = {"count": kinds.sum(1), **dict(zip(kind_columns(num_kinds), kinds.T, strict=True))}
    table = pa.table({"id": timelines.items, **counts, "first_seen_ms": first, "last_seen_ms": last})
    return table.filter(pc.greater(table["count"], 0))


def count_no_events(ids: pa.ChunkedArray, num_kinds: int) -> pa.Table:
    """Makes a table with the columns of `count_items` and a row per distinct id, as if no item had events.

    All counts are 0, and all times are null.
    """
    distinct = pc.unique(ids)
    zeros, nulls = pa.array(np.zeros(len(distinct), np.int64)), pa.nulls(len(distinct), pa.int64())
    counts = dict.fromkeys(("count", *kind_columns(num_kinds)), zeros)
    return pa.table({"id": distinct, **counts, "first_seen_ms": nulls, "last_seen_ms": nulls})


def count_visitors(timelines: Timelines, rows: np.ndarray) -> pa.Table:
    """Counts the events of each visitor. Omits visitors without events.

    `rows` is a mask of the rows to count. Returns the columns id and count.
    """
    counts = np.bincount(timelines.visitor_code[rows], minlength=len(timelines.visitors))
    table = pa.table({"id": timelines.visitors, "count": counts})
    return table.filter(pc.greater(table["count"], 0))


def count_values(lists: pa.Array) -> pa.Table:
    """Counts the lists that contain each value. A list must not repeat a value.

    Returns the columns id (the value) and count.
    """
    counted = pc.value_counts(lists.flatten())
    return pa.table({"id": counted.field("values"), "count": counted.field("counts")})


def merge_counts(encoded: Iterable[EncodedTable]) -> EncodedTable:
    """Adds up count tables with the same columns; returns one row per distinct id.

    The result has the earliest first_seen_ms and the latest last_seen_ms of each id. Empty bytes stand for a table
    without rows.
    """
    tables = [decode_columns(part) for part in encoded if part]
    if not tables:
        return b""
    table = pa.concat_tables(tables)
    aggregation = {"first_seen_ms": "min", "last_seen_ms": "max"}
    names = [name for name in table.column_names if name != "id"]
    merged = table.group_by("id", use_threads=False).aggregate([(name, aggregation.get(name, "sum")) for name in names])
    columns = {"id": merged["id"]} | {name: merged[f"{name}_{aggregation.get(name, 'sum')}"] for name in names}
    return encode_columns(pa.table(columns))


def choose_entries(counts: pa.Table, config: VocabularyConfig) -> pa.Table:
    """Returns the rows that become vocabulary entries, sorted by descending count, then by id.

    `counts` has the columns id and count.
    """
    frequent = counts.filter(pc.greater_equal(counts["count"], config.min_count))
    return sort_by_count(frequent).slice(0, config.max_size)


def index_visitors(
    work: Workspace, num_partitions: int, config: VocabularyConfig, layout: DatasetLayout
) -> VocabularyInfo:
    """Writes the visitor vocabulary and, for each partition, a table of its visitors' ids and vocabulary indices.

    Reads the visitors' event counts from `work`. The tables omit visitors outside the vocabulary.

    Raises:
      ValueError: the vocabulary would be empty.
    """
    counts = [read_table(work.visitor_counts(partition)) for partition in range(num_partitions)]
    owners = np.repeat(np.arange(num_partitions), [len(part) for part in counts])
    entries = choose_entries(pa.concat_tables(counts).append_column("partition", pa.array(owners)), config)
    _write_ids(layout.vocabulary(Vocabulary.VISITORS), entries)
    _check_not_empty(Vocabulary.VISITORS, entries, config)
    entries = _number(entries)
    by_partition = np.argsort(entries["partition"].to_numpy(), kind="stable")
    ends = np.cumsum(np.bincount(entries["partition"].to_numpy(), minlength=num_partitions))
    for partition, (begin, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        rows = pa.array(by_partition[begin:end])
        write_table(work.visitor_indices(partition), entries.take(rows).select(["id", "index"]))
    return VocabularyInfo(size=len(entries), oov_buckets=config.oov_buckets)


def index_items(
    work: Workspace, num_partitions: int, encoded_counts: EncodedTable, config: VocabularyConfig, layout: DatasetLayout
) -> VocabularyInfo:
    """Builds and writes the item vocabulary, and the counts and indices of each partition's items.

    Items outside the vocabulary have the index -1.

    Args:
      work: paths of the intermediate files.
      encoded_counts: training events per item, with the columns of `count_items`.
      layout: paths of the dataset's files.

    Raises:
      ValueError: the vocabulary would be empty.
    """
    counts = decode_columns(encoded_counts)
    entries = choose_entries(counts, config)
    _write_ids(layout.vocabulary(Vocabulary.ITEMS), entries)
    _check_not_empty(Vocabulary.ITEMS, entries, config)
    write_table(work.item_vocabulary, entries.select(["id"]))
    items = pa.concat_tables([_number(entries), _rows_without_index(counts, entries)])
    by_partition = dict(split_by_partition(items, assign_partitions(items["id"].combine_chunks(), num_partitions)))
    for partition in range(num_partitions):
        write_table(work.items(partition), by_partition.get(partition, items.slice(0, 0)))
    return VocabularyInfo(size=len(entries), oov_buckets=config.oov_buckets)


def _rows_without_index(counts: pa.Table, entries: pa.Table) -> pa.Table:
    """Returns the rows of `counts` for ids that are not in `entries`, sorted by id, with -1 in the column `index`."""
    others = counts.filter(pc.invert(pc.is_in(counts["id"], value_set=entries["id"].combine_chunks())))
    return others.append_column("index", pa.array(np.full(len(others), -1))).sort_by("id")


def index_words(
    name: Vocabulary, encoded_counts: EncodedTable, config: VocabularyConfig, layout: DatasetLayout
) -> VocabularyInfo:
    """Builds and writes the vocabulary of categories or of property values.

    The vocabulary may be empty. `encoded_counts` has the columns id and count.
    """
    entries = choose_entries(decode_columns(encoded_counts), config)
    _write_ids(layout.vocabulary(name), entries)
    return VocabularyInfo(size=len(entries), oov_buckets=config.oov_buckets)


def assign_indices(ids: pa.Array, vocabulary: pa.Array, oov_buckets: int) -> np.ndarray:
    """Returns the vocabulary index of each id, [N] int64.

    Args:
      ids: [N] ids.
      vocabulary: [V] ids in index order.
      oov_buckets: number of buckets for ids that are not in the vocabulary; bucket b has the index V + b.
    """
    found = pc.index_in(ids, value_set=vocabulary)
    if found.null_count == 0:
        return found.to_numpy().astype(np.int64)
    unknown = found.is_null().to_numpy(zero_copy_only=False)
    indices = found.fill_null(0).to_numpy().astype(np.int64)
    indices[unknown] = len(vocabulary) + assign_oov_buckets(ids.filter(pa.array(unknown)), oov_buckets)
    return indices


def assign_oov_buckets(ids: pa.Array, oov_buckets: int) -> np.ndarray:
    """Returns the out-of-vocabulary bucket of each id, from 0 to `oov_buckets` - 1, as int64 [N].

    `tf.lookup.StaticVocabularyTable` assigns the same buckets.
    """
    if oov_buckets == 1:
        return np.zeros(len(ids), np.int64)
    texts = tf.constant(ids.to_numpy(zero_copy_only=False).astype(object), tf.string)
    return tf.strings.to_hash_bucket_fast(texts, oov_buckets).numpy()


def _check_not_empty(name: Vocabulary, entries: pa.Table, config: VocabularyConfig) -> None:
    if len(entries) == 0:
        raise ValueError(f"none of the {name} has {config.min_count} or more training events; lower {name}.min_count")


def _number(entries: pa.Table) -> pa.Table:
    return entries.append_column("index", pa.array(np.arange(len(entries))))


def _write_ids(path: str, entries: pa.Table) -> None:
    storage.write_bytes(path, "".join(f"{entry}\n" for entry in entries["id"].to_pylist()).encode())
