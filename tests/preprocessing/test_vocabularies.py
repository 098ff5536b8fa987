"""Vocabularies and indices."""

import numpy as np
import pyarrow as pa
import tensorflow as tf

from preprocessing.columns import decode_columns, encode_columns
from preprocessing.config import VocabularyConfig
from preprocessing.vocabularies import assign_indices, choose_entries, count_no_events, kind_columns, merge_counts

COLUMNS = ["id", "count", *kind_columns(3), "first_seen_ms", "last_seen_ms"]


def counts(**of: int) -> pa.Table:
    return pa.table({"id": list(of), "count": list(of.values())})


def test_entries_are_ordered_by_count_then_by_id():
    assert choose_entries(counts(b=2, c=5, a=2), VocabularyConfig())["id"].to_pylist() == ["c", "a", "b"]


def test_rare_ids_and_ids_beyond_the_maximum_size_are_dropped():
    table = counts(a=9, b=3, c=3, d=1)
    assert choose_entries(table, VocabularyConfig(min_count=3))["id"].to_pylist() == ["a", "b", "c"]
    assert choose_entries(table, VocabularyConfig(min_count=3, max_size=2))["id"].to_pylist() == ["a", "b"]


def test_merged_counts_are_sums_with_the_first_and_last_time():
    def part(count: int, first: int, last: int) -> bytes:
        return encode_columns(
            pa.table({"id": ["x"], "count": [count], "first_seen_ms": [first], "last_seen_ms": [last]})
        )

    merged = decode_columns(merge_counts([part(2, 50, 60), part(3, 10, 55)])).to_pylist()
    assert merged == [{"id": "x", "count": 5, "first_seen_ms": 10, "last_seen_ms": 60}]


def test_empty_counts_are_ignored():
    counted = encode_columns(pa.table({"id": ["a"], "count": [2]}))
    assert merge_counts([b"", counted]) == merge_counts([counted])
    assert merge_counts([b""]) == merge_counts([]) == b""


def test_items_known_from_properties_only_have_no_events_and_come_last():
    seen = pa.table({"id": ["x"], **{name: [2] for name in COLUMNS[1:]}})
    unseen = count_no_events(pa.chunked_array([pa.array(["z", "x", "z", "y"])]), 3)
    assert unseen["id"].to_pylist() == ["z", "x", "y"]
    merged = decode_columns(merge_counts([encode_columns(seen), encode_columns(unseen)]))
    entries = choose_entries(merged, VocabularyConfig(min_count=0)).select(COLUMNS).to_pylist()
    assert [list(entry.values()) for entry in entries] == [
        ["x", 2, 2, 2, 2, 2, 2],
        ["y", 0, 0, 0, 0, None, None],
        ["z", 0, 0, 0, 0, None, None],
    ]
    assert choose_entries(merged, VocabularyConfig(min_count=1))["id"].to_pylist() == ["x"]


def test_unknown_ids_get_the_same_bucket_as_in_tensorflow(tmp_path):
    path = tmp_path / "items.txt"
    path.write_text("x\ny\n")
    ids = ["y", "x", "new-1", "Ж", "new-2", ""]
    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(path), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
        ),
        num_oov_buckets=5,
    )
    ours = assign_indices(pa.array(ids), pa.array(["x", "y"]), 5)
    assert ours.tolist() == table.lookup(tf.constant(ids)).numpy().tolist()
    assert (ours[:2] == [1, 0]).all()
    assert ((ours[2:] >= 2) & (ours[2:] < 7)).all()
    assert len(np.unique(ours[2:])) > 1
