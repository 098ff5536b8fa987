import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common import storage
from common.storage.cache import Cache
from contract.schema import DEFAULT_KINDS, Split
from contract.shards import Piece, Shard, read_piece, read_timelines
from contract.timelines import timeline_starts
from tests.trainer.dataset_builder import Event, build_dataset
from trainer.config.run import InputConfig
from trainer.data import input_pipeline
from trainer.data import streams as data_streams
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.input_pipeline import (
    WHOLE,
    Batch,
    Share,
    count_streams,
    steps_per_epoch,
    total_events,
    training_batches,
)
from trainer.data.streams import EpochBlocks, Streams, Window
from trainer.data.training_events import TrainingEvents

ROWS = 230
INPUT = InputConfig(batch_size=32, window_blocks=16)  # two streams, and two windows of 4 steps


def make_dataset(root: Path, *, num_shards: int = 3, compressed: bool = False) -> Dataset:
    """Builds a dataset of 230 rows of 50 visitors; all pairs of visitor and item are distinct."""
    kinds = ["view", "addtocart", "transaction"]
    return build_dataset(
        str(root),
        train=[(f"v{row % 50}", f"i{row // 50}", kinds[row % 23 % 3], row) for row in range(ROWS)],
        validation=[("v1", "i4", "view", 1000), ("v2", "i4", "view", 1001)],
        visitors=[f"v{visitor}" for visitor in range(50)],
        items=[f"i{item}" for item in range(5)],
        num_shards=num_shards,
        block_rows=10,
        compressed=compressed,
    )


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> TrainingEvents:
    return make_dataset(tmp_path_factory.mktemp("dataset")).training_events


def read(
    events: TrainingEvents,
    epoch: int = 0,
    seed: int = 1,
    first_step: int = 0,
    config: InputConfig = INPUT,
    history_length: int = 0,
    is_sequential: bool = True,
    share: Share = WHOLE,
    streams: Streams | None = None,
) -> list[Batch]:
    batches = training_batches(
        events,
        config,
        seed=seed,
        epochs=epoch + 1,
        history_length=history_length,
        is_sequential=is_sequential,
        has_times=True,
        first_epoch=epoch,
        first_step=first_step,
        share=share,
        streams=streams,
    )
    return [Batch(*(column.numpy() for column in batch)) for batch in batches]


def pairs(batches: list[Batch]) -> list[tuple[int, int]]:
    return [
        (int(visitor), int(item))
        for batch in batches
        for visitor, item in zip(batch.visitor[batch.is_row], batch.item[batch.is_row], strict=True)
    ]


@pytest.mark.parametrize(
    ("num_shards", "compressed", "window_blocks", "batch_size"),
    [(1, False, 1, 7), (3, True, 16, 32), (8, False, 100, 230), (60, False, 4, 1000)],
)
def test_an_epoch_contains_every_row_exactly_once(
    tmp_path: Path, num_shards: int, compressed: bool, window_blocks: int, batch_size: int
) -> None:
    dataset = make_dataset(tmp_path, num_shards=num_shards, compressed=compressed)
    config = InputConfig(batch_size=batch_size, window_blocks=window_blocks)
    batches = read(dataset.training_events, config=config)
    assert len(batches) == steps_per_epoch(ROWS, batch_size)
    assert {batch.visitor.shape for batch in batches} == {(batch_size,)}
    assert Counter(pairs(batches)) == Counter((row % 50, row // 50) for row in range(ROWS))


def test_only_the_last_batch_is_padded(events: TrainingEvents) -> None:
    batches = read(events)
    # 230 = 7 × 32 + 6
    assert [int(batch.is_row.sum()) for batch in batches] == [32] * 7 + [6]
    # two streams of 115 rows, of 16 rows per batch: each has 3 left
    np.testing.assert_array_equal(np.flatnonzero(batches[-1].is_row), [0, 1, 2, 16, 17, 18])


def test_context_rows_are_skipped(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    assert dataset.manifest.splits[Split.VALIDATION].rows > 2
    assert sorted(pairs(read(TrainingEvents(dataset.shards(Split.VALIDATION))))) == [(1, 4), (2, 4)]
    np.testing.assert_array_equal(
        total_events(TrainingEvents(dataset.shards(Split.VALIDATION)), INPUT, [1.0] * 3).counts, [2, 0, 0]
    )


def test_the_columns_of_a_row_stay_together(events: TrainingEvents) -> None:
    for batch in read(events):
        row = batch.item * 50 + batch.visitor
        np.testing.assert_array_equal(batch.event[batch.is_row], (row % 23 % 3)[batch.is_row])


def test_indices_have_four_bytes(events: TrainingEvents) -> None:
    """They are copied to the GPUs in every step."""
    batch = read(events, history_length=3)[0]
    indices = ("visitor", "item", "event", "history", "history_event")
    assert {name: getattr(batch, name).dtype.name for name in indices} == dict.fromkeys(indices, "int32")


def test_the_order_depends_on_seed_and_epoch_alone(events: TrainingEvents) -> None:
    order = pairs(read(events, epoch=2, seed=3))
    assert order == pairs(read(events, epoch=2, seed=3))
    assert order != pairs(read(events, epoch=3, seed=3))
    assert order != pairs(read(events, epoch=2, seed=4))


def test_the_rows_of_a_visitor_are_scattered(events: TrainingEvents) -> None:
    config = InputConfig(batch_size=ROWS, window_blocks=100)
    visitors = read(events, config=config)[0].visitor
    # a visitor's 4 or 5 rows are contiguous in the file: 230 - 50 = 180 neighbours; by chance, 230 × 4 / 229 = 4
    assert (visitors[1:] == visitors[:-1]).sum() < 20


@pytest.mark.parametrize("first_step", [0, 1, 5, 7, 8])
def test_reading_from_a_step_returns_the_rest_of_the_epoch(events: TrainingEvents, first_step: int) -> None:
    rest = read(events, first_step=first_step)
    expected = read(events)[first_step:]
    assert len(rest) == len(expected) == 8 - first_step
    assert pairs(rest) == pairs(expected)


@pytest.mark.parametrize(("batch_size", "workers"), [(32, 2), (32, 8), (30, 3)])
@pytest.mark.parametrize("is_sequential", [True, False])
def test_the_shares_of_workers_are_the_parts_of_the_global_batches(
    events: TrainingEvents, batch_size: int, workers: int, is_sequential: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_streams, "_MIN_BLOCKS", 4)  # 4 streams for 32 rows, 3 for 30

    def read_share(share: Share) -> list[Batch]:
        config = replace(INPUT, batch_size=batch_size)
        return read(events, epoch=2, config=config, history_length=2, is_sequential=is_sequential, share=share)

    shares = [read_share(Share(worker, workers)) for worker in range(workers)]
    for batch, parts in zip(read_share(WHOLE), zip(*shares, strict=True), strict=True):
        for column, of_workers in zip(batch, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(of_workers), column)


def test_a_worker_reads_the_blocks_of_its_streams_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four workers with a stream each; blocks that two windows need are read twice."""
    monkeypatch.setattr(data_streams, "_MIN_BLOCKS", 4)
    events = make_dataset(tmp_path, num_shards=4).training_events
    streams = count_streams(events, INPUT, 0, is_sequential=True)
    assert (streams.count, streams.num_windows) == (4, 2)
    num_read: list[int] = []

    def read_and_count(piece: Piece, shards: Sequence[Shard]) -> list[bytes]:
        num_read.append(piece.num_blocks)
        return read_piece(piece, shards)

    monkeypatch.setattr(input_pipeline, "read_piece", read_and_count)
    for worker in range(4):
        num_read.clear()
        read(events, share=Share(worker, 4), streams=streams)
        assert sum(num_read) <= sum(len(shard.rows) for shard in streams.shards) / 4 + 3


def test_a_resumed_run_reads_one_window_too_much_at_most(
    events: TrainingEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = count_streams(events, INPUT, 0, is_sequential=True)
    windows: list[int] = []
    plan = Streams.plan

    def plan_and_record(self: Streams, blocks: EpochBlocks, window: int, own: range) -> Window:
        windows.append(window)
        return plan(self, blocks, window, own)

    monkeypatch.setattr(Streams, "plan", plan_and_record)
    read(events, first_step=5, streams=streams)
    assert windows == [1]


def test_events_are_counted_by_kind(events: TrainingEvents) -> None:
    expected = np.bincount([row % 23 % 3 for row in range(ROWS)])
    np.testing.assert_array_equal(total_events(events, INPUT, [1.0] * 3).counts, expected)


def test_several_epochs_are_the_single_epochs_in_sequence(events: TrainingEvents) -> None:
    batches = training_batches(events, INPUT, seed=1, epochs=3, first_epoch=1, first_step=5)
    rows = pairs([Batch(*(column.numpy() for column in batch)) for batch in batches])
    assert rows == pairs(read(events, epoch=1, first_step=5)) + pairs(read(events, epoch=2))


def test_shards_in_a_store_are_read_like_local_ones_with_a_bounded_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = make_dataset(tmp_path, num_shards=12, compressed=True).shards(Split.TRAIN)
    remote = [Shard(f"memory://shards/{Path(shard.path).name}", shard.sha256) for shard in local]
    for source, target in zip(local, remote, strict=True):
        storage.upload(source.path, target.path)
    cache = Cache(max_bytes=0)  # keeps a file only while it is in use
    for module in ("common.storage", "common.storage.files"):
        monkeypatch.setattr(f"{module}.process_cache", lambda: cache)
    for one, other in zip(read(TrainingEvents(local), epoch=1), read(TrainingEvents(remote), epoch=1), strict=True):
        np.testing.assert_array_equal(one.visitor, other.visitor)
        np.testing.assert_array_equal(one.item, other.item)
    assert not cache._sizes, "each file is released after its last block"


def test_a_damaged_shard_in_a_store_is_reported_in_one_sentence() -> None:
    storage.write_bytes("memory://damaged/a.tfrecord", b"not the original")
    with pytest.raises(OSError, match=r"events of (memory:\S+) cannot be read: \1 is damaged.*prepare the"):
        read_timelines([Shard("memory://damaged/a.tfrecord", "0" * 64)])


@pytest.mark.parametrize("seed", range(6))
def test_a_history_contains_exactly_the_earlier_rows_of_its_visitor(seed: int, tmp_path: Path) -> None:
    """The timelines are random and have 1 to 30 rows. Each row has a different item, which identifies the row."""
    generator = np.random.default_rng(seed)
    length = int(generator.integers(1, 9))
    owner = np.repeat(np.arange(25), generator.integers(1, 31, 25))
    events = [
        Event(f"v{visitor}", f"i{row}", DEFAULT_KINDS[generator.integers(3)], int(time))
        for row, (visitor, time) in enumerate(zip(owner, generator.integers(0, 40, len(owner)), strict=True))
    ]
    late = [event._replace(timestamp_ms=event.timestamp_ms + 100) for event in events[::4]]
    dataset = build_dataset(
        str(tmp_path),
        train=events,
        validation=late,
        visitors=[f"v{visitor}" for visitor in range(20)],  # the others share the out-of-vocabulary bucket
        items=[f"i{row}" for row in range(len(events))],
        num_shards=int(generator.integers(1, 4)),
        block_rows=int(generator.integers(1, 50)),
    )
    config = InputConfig(batch_size=17, window_blocks=int(generator.integers(1, 9)))
    for split in (Split.TRAIN, Split.VALIDATION):
        expected = _histories_row_by_row(dataset.shards(split), length)
        batches = read(TrainingEvents(dataset.shards(split)), config=config, history_length=length)
        assert Counter(_histories_of(batches)) == Counter(expected)
        assert total_events(TrainingEvents(dataset.shards(split)), config, [1.0] * 3, length).counts.sum() == len(
            expected
        )


def _histories_row_by_row(shards: list[Shard], length: int) -> list[tuple]:
    """Returns (visitor, item, [(item, event, age), …] newest first) for every target row with an earlier row."""
    rows = read_timelines(shards)
    starts = timeline_starts(rows.position)
    found: list[tuple] = []
    for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        for row in range(begin + 1, end):
            earlier = [
                (int(rows.item[other]), int(rows.event[other]), int(rows.timestamp_ms[row] - rows.timestamp_ms[other]))
                for other in reversed(range(max(begin, row - length), row))
            ]
            if rows.is_target[row]:
                found.append((int(rows.visitor[row]), int(rows.item[row]), tuple(earlier)))
    return found


def _histories_of(batches: list[Batch]) -> list[tuple]:
    found: list[tuple] = []
    for batch in batches:
        for row in np.flatnonzero(batch.is_row):
            entries = np.flatnonzero(batch.is_history[row])
            assert entries.tolist() == list(range(len(entries)))  # no gaps
            history = zip(batch.history[row], batch.history_event[row], batch.history_age_ms[row], strict=True)
            earlier = tuple(tuple(int(number) for number in entry) for entry in list(history)[: len(entries)])
            found.append((int(batch.visitor[row]), int(batch.item[row]), earlier))
    return found


def test_with_histories_the_first_row_of_a_timeline_is_skipped(events: TrainingEvents) -> None:
    batches = read(events, history_length=3)
    # 50 visitors: 230 - 50 rows have an earlier row
    assert sum(int(batch.is_row.sum()) for batch in batches) == 180
    assert {batch.history.shape for batch in batches} == {(32, 3)}


def test_the_order_with_histories_depends_on_seed_and_epoch_alone(events: TrainingEvents) -> None:
    order = pairs(read(events, epoch=2, seed=3, history_length=3))
    assert order == pairs(read(events, epoch=2, seed=3, history_length=3))
    assert order[64:] == pairs(read(events, epoch=2, seed=3, history_length=3, first_step=2))
    assert order != pairs(read(events, epoch=3, seed=3, history_length=3))


@pytest.mark.parametrize("history_length", [2, 10])
def test_the_rows_around_a_row_are_those_after_it_then_those_from_the_beginning(
    tmp_path: Path, history_length: int
) -> None:
    train = [Event("a", f"i{place}", "view", place * 100) for place in range(4)] + [Event("b", "i4", "view", 50)]
    dataset = build_dataset(str(tmp_path), train=train, visitors=["a", "b"], items=[f"i{item}" for item in range(5)])
    events = dataset.training_events
    (batch,) = read(events, history_length=history_length, is_sequential=False)
    # the only row of b has no rows around it
    assert int(batch.is_row.sum()) == 4
    np.testing.assert_array_equal(
        total_events(events, INPUT, [1.0] * 3, history_length, is_sequential=False).counts, [4, 0, 0]
    )
    around = {
        int(item): history[is_history].tolist()
        for item, history, is_history in zip(batch.item[:4], batch.history, batch.is_history, strict=False)
    }
    expected = {0: [1, 2, 3], 1: [2, 3, 0], 2: [3, 0, 1], 3: [0, 1, 2]}
    assert around == {item: others[:history_length] for item, others in expected.items()}
    row = int(np.flatnonzero(batch.item[:4] == 2)[0])
    assert batch.history_age_ms[row, :2].tolist() == [-100, 200]
    assert batch.timestamp_ms[row] == 200


def test_verification_and_passes_over_all_events_report_progress(tmp_path: Path) -> None:
    pings: list[int] = []
    dataset = open_dataset(make_dataset(tmp_path).root, lambda: pings.append(1))
    assert len(pings) == len(dataset.manifest.files)
    total_events(dataset.training_events, INPUT, [1.0] * 3)
    assert len(pings) == len(dataset.manifest.files) + 2  # 23 blocks in windows of 16
    list(dataset.training_events.read())
    assert len(pings) == len(dataset.manifest.files) + 2 + 3  # shards


@pytest.mark.parametrize(("cores", "threads"), [(1, 2), (2, 2), (5, 5), (64, 8)])
def test_windows_are_read_by_a_thread_per_core(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert input_pipeline._num_threads() == threads
