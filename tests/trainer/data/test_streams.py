"""The streams of an epoch, against a plain reference that walks over the rows one by one."""

import numpy as np
import pytest

from trainer.data.streams import ShardBlocks, Streams

SEED, EPOCH = 3, 2


def make_streams(
    seed: int, *, batch_size: int = 48, max_streams: int = 6, window_blocks: int = 48, num_shards: int = 3
) -> Streams:
    """Builds the streams of shards of 16 to 47 blocks of 0 to 9 rows."""
    generator = np.random.default_rng(seed)
    rows = [generator.integers(0, 10, generator.integers(16, 48)) for _ in range(num_shards)]
    shards = [ShardBlocks(of_shard, 100 * np.arange(len(of_shard))) for of_shard in rows]
    return Streams(shards, batch_size, max_streams, window_blocks)


def read_epoch(streams: Streams, own: range) -> list[list[tuple[int, int, int] | None]]:
    """Returns the rows of each step, as (shard, block, row of the block); None for padding."""
    blocks = streams.order(SEED, EPOCH)
    steps: list[list[tuple[int, int, int] | None]] = []
    for number in range(streams.num_windows):
        window = streams.plan(blocks, number, own)
        found = []
        for shard, first, offset, count in window.pieces:
            assert offset == 100 * first
            for block in range(first, first + count):
                found += [(shard, block, row) for row in range(streams.shards[shard].rows[block])]
        steps += [[found[row] if row >= 0 else None for row in rows] for rows in window.rows.tolist()]
    return steps


@pytest.mark.parametrize("seed", range(5))
def test_an_epoch_contains_each_row_once_and_only_its_last_batch_is_padded(seed: int) -> None:
    streams = make_streams(seed)
    assert streams.count == 6
    steps = read_epoch(streams, range(48))
    everything = [
        (shard, block, row)
        for shard, (counts, _) in enumerate(streams.shards)
        for block, count in enumerate(counts)
        for row in range(count)
    ]
    assert sorted(row for step in steps for row in step if row is not None) == everything
    assert len(steps) == streams.num_steps == -(-len(everything) // 48)
    assert all(row is not None for step in steps[:-1] for row in step)
    # the rows of the last batch are the first of each stream's 8, and the same number in each stream, give or take one
    last = [[row is not None for row in steps[-1][begin : begin + 8]] for begin in range(0, 48, 8)]
    assert all(flags == sorted(flags, reverse=True) for flags in last)
    assert max(map(sum, last)) - min(map(sum, last)) <= 1


def test_a_batch_has_rows_of_all_parts_of_the_epoch_in_random_order() -> None:
    streams = make_streams(0)
    blocks = streams.order(SEED, EPOCH)
    numbers = {tuple(block[:2]): number for number, block in enumerate(blocks.columns.tolist())}
    order = np.array([[numbers[row[:2]] for row in step] for step in read_epoch(streams, range(48))[:-1]])
    for stream in range(6):
        of_stream = order[:, stream * 8 : (stream + 1) * 8]
        bounds = np.searchsorted(blocks.edges, streams.num_rows * np.arange(stream, stream + 2) // 6)
        assert of_stream.min() >= bounds[0] - 1
        assert of_stream.max() < bounds[1]
        assert (np.diff(of_stream.ravel()) < 0).any()


@pytest.mark.parametrize("readers", [2, 3, 4, 16])
def test_readers_of_different_rows_read_the_rows_of_one_reader(readers: int) -> None:
    streams = make_streams(1)
    size = 48 // readers
    parts = [read_epoch(streams, range(begin, begin + size)) for begin in range(0, 48, size)]
    joined = [[row for part in step for row in part] for step in zip(*parts, strict=True)]
    assert joined == read_epoch(streams, range(48))


def test_two_windows_read_only_the_block_that_they_share() -> None:
    # 64 blocks of 10 rows in 4 streams of 160 rows; windows of 48 steps of 2 rows per stream: 96 rows, then 64
    streams = Streams([ShardBlocks(np.full(64, 10), np.arange(64))], 8, 4, 38)
    assert (streams.count, streams.window_steps, streams.num_windows) == (4, 48, 2)
    blocks = streams.order(0, 0)
    for stream in range(4):
        own = range(2 * stream, 2 * stream + 2)
        counts = [sum(piece.num_blocks for piece in streams.plan(blocks, window, own).pieces) for window in (0, 1)]
        assert counts == [10, 7]


def test_the_order_differs_between_epochs_even_with_one_shard() -> None:
    streams = make_streams(0, num_shards=1)
    first, second = (streams.order(SEED, epoch).columns[:, 1].tolist() for epoch in (0, 1))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize(
    ("batch_size", "max_streams", "blocks", "window_blocks", "count"),
    [
        (64, 16, 1000, 256, 16),
        (64, 16, 1000, 32, 4),
        (64, 16, 40, 256, 4),
        (64, 16, 3, 256, 1),
        (100, 16, 1000, 256, 10),
        (97, 16, 1000, 256, 1),
        (1, 16, 1000, 256, 1),
    ],
)
def test_streams_divide_the_batch_and_have_blocks_enough(
    batch_size: int, max_streams: int, blocks: int, window_blocks: int, count: int
) -> None:
    shard = ShardBlocks(np.ones(blocks, np.int64), np.arange(blocks))
    assert Streams([shard], batch_size, max_streams, window_blocks).count == count
