"""Tests the codec of timeline blocks."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from contract.shards import Shard, read_identified_timelines, read_timelines
from contract.timelines import TimelineRows, encode_blocks, parse_block, parse_blocks, parse_unknown_ids


def rows(*lengths: int) -> TimelineRows:
    """Builds one timeline of each length; all other columns number the rows."""
    visitor = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths] or [np.empty(0, np.int64)])
    number = np.arange(len(visitor))
    return TimelineRows(visitor, position, number, number % 3, number + 1_440_000_000_000, number % 2)


def block_lengths(*lengths: int, block_rows: int) -> list[int]:
    return [len(parse_block(block)["visitor"]) for block in encode_blocks(rows(*lengths), block_rows)]


def test_the_timeline_that_fills_a_block_closes_it():
    # 2 + 1 reach 3 rows; 4 exceeds 3 alone; the last 1 remains
    assert block_lengths(2, 1, 4, 1, block_rows=3) == [3, 4, 1]


def test_a_timeline_longer_than_a_block_is_not_split():
    assert block_lengths(10, block_rows=3) == [10]


def test_no_rows_give_no_block():
    assert block_lengths(block_rows=3) == []


def test_rows_read_back_equal_from_a_file(tmp_path):
    path = str(tmp_path / "train-00000-of-00001.tfrecord.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for block in encode_blocks(rows(3, 2, 4), 4):
            writer.write(block)
    found = read_timelines([Shard(path, "")])
    for name in ("visitor", "position", "item", "event", "timestamp_ms", "is_target", "weight"):
        assert getattr(found, name).tolist() == getattr(rows(3, 2, 4), name).tolist()


def test_the_ids_of_visitors_outside_the_vocabulary_are_stored_with_their_timelines(tmp_path):
    path = str(tmp_path / "test-00000-of-00001.tfrecord")
    blocks = list(encode_blocks(rows(2, 1, 3, 1), 3, ["", "né\u2028w", "x", ""]))
    with tf.io.TFRecordWriter(path) as writer:
        for block in blocks:
            writer.write(block)
    assert [parse_unknown_ids(block).numpy().tolist() for block in blocks] == [["né\u2028w".encode()], [b"x"], []]
    found, ids = read_identified_timelines(Shard(path, ""))
    assert (found.item.tolist(), ids) == ([0, 1, 2, 3, 4, 5, 6], ["né\u2028w", "x"])


def test_weights_are_one_unless_given_and_follow_their_rows():
    plain = rows(2, 1)
    assert (plain.weight.dtype, plain.weight.tolist()) == (np.float32, [1, 1, 1])
    weighted = replace(plain, weight=np.array([0.25, 0, 3], np.float32))
    assert weighted[1:].weight.tolist() == [0, 3]
    assert TimelineRows.concatenate([weighted, plain]).weight.tolist() == [0.25, 0, 3, 1, 1, 1]
    assert TimelineRows.concatenate([]).weight.dtype == np.float32
    blocks = list(encode_blocks(weighted, 1))
    assert [parse_block(block)["weight"].numpy().tolist() for block in blocks] == [[0.25, 0], [3]]
    parsed = parse_blocks(tf.constant(blocks), ("item", "weight"))
    assert (parsed["item"].dtype, parsed["weight"].dtype) == (tf.int64, tf.float32)
    assert parsed["weight"].numpy().tolist() == [0.25, 0, 3]


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="must have the same length"):
        TimelineRows(*[np.zeros(2)] * 5, np.zeros(3))
    with pytest.raises(ValueError, match="must have the same length"):
        replace(rows(2), weight=np.ones(3, np.float32))


def test_a_block_size_of_zero_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        list(encode_blocks(rows(1), 0))
