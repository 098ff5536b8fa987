"""Each event of all splits is trained on exactly once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from contract.schema import SplitMethod
from contract.timelines import TimelineRows
from tests.trainer.dataset_builder import Event, build_dataset
from trainer.config.run import InputConfig
from trainer.data.baskets import training_baskets
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import Batch, total_events, training_batches
from trainer.data.interactions import read_interactions

# ann has events in all splits, bob in training and test, cid only in validation; dee is not in the vocabulary
TRAIN = [("ann", "a", "view", 1), ("ann", "b", "view", 2), ("bob", "a", "view", 3), ("dee", "b", "view", 4)]
VALIDATION = [("ann", "c", "view", 11), ("cid", "b", "view", 12), ("cid", "e", "view", 13), ("dee", "a", "view", 14)]
TEST = [("ann", "a", "view", 21), ("bob", "b", "view", 22), ("dee", "c", "view", 23)]
VISITORS, ITEMS = ["ann", "bob", "cid"], ["a", "b", "d", "c", "e"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = str(tmp_path_factory.mktemp("dataset"))
    events = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return build_dataset(root, **events, visitors=VISITORS, items=ITEMS, num_shards=2).with_all_events()


def read(dataset: Dataset, *, history_length: int = 0, is_sequential: bool = True) -> list[Batch]:
    batches = training_batches(
        dataset.training_events,
        InputConfig(batch_size=4, window_blocks=2),
        seed=0,
        epochs=1,
        history_length=history_length,
        is_sequential=is_sequential,
        has_times=True,
    )
    return list(batches)


def times(batches: list[Batch]) -> list[int]:
    """Returns the times of the rows; a time identifies a row."""
    return sorted(int(time) for batch in batches for time in batch.timestamp_ms[batch.is_row])


def test_every_event_of_all_splits_is_trained_on_once(dataset: Dataset) -> None:
    assert times(read(dataset)) == [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23]
    assert total_events(dataset.training_events, InputConfig(), [1.0] * 3).counts.tolist() == [11, 0, 0]


def test_a_row_is_surrounded_by_the_whole_timeline_of_its_visitor(dataset: Dataset) -> None:
    batches = read(dataset, history_length=5, is_sequential=False)
    others = {
        int(batch.timestamp_ms[row]): sorted(batch.history[row][batch.is_history[row]].numpy().tolist())
        for batch in batches
        for row in np.flatnonzero(batch.is_row)
    }
    # a 0, b 1, c 3, e 4; dee shares an index with other unknown visitors, so her rows only have the rows before them
    of_ann, of_dee = {1: [0, 1, 3], 2: [0, 0, 3], 11: [0, 0, 1], 21: [0, 1, 3]}, {14: [1], 23: [0, 1]}
    assert others == {**of_ann, 3: [1], 22: [0], 12: [4], 13: [1], **of_dee}


def test_the_history_of_a_row_is_all_that_happened_before(dataset: Dataset) -> None:
    # without the first row of each timeline
    assert times(read(dataset, history_length=5)) == [2, 11, 13, 14, 21, 22, 23]


def test_counts_and_matrices_have_the_events_of_all_splits(dataset: Dataset) -> None:
    assert dataset.item_counts.tolist() == [4, 4, 0, 2, 1]
    assert dataset.num_trained_items == 5, "d is among the trained items, without an event"
    assert dataset.visitor_counts.tolist() == [2, 1, 0], "the visitors with vectors of their own stay the same"
    matrix = read_interactions(dataset, (1.0, 1.0, 1.0)).toarray()
    np.testing.assert_array_equal(matrix, [[2, 1, 0, 1, 0], [1, 1, 0, 0, 0], [0, 1, 0, 0, 1]])
    baskets = training_baskets(dataset).toarray().astype(int).tolist()
    # timelines from the one that ends last; each event of dee is in one of her three
    assert baskets == [
        [0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 1],
        [0, 1, 0, 0, 0],
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", [SplitMethod.TIME, SplitMethod.RANDOM])
def test_random_logs_are_trained_on_once_and_in_whole_timelines(seed: int, method: SplitMethod, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    log = [Event(f"v{generator.integers(12)}", f"i{generator.integers(5)}", "view", time) for time in range(80)]
    split = generator.integers(3, size=80) if method == SplitMethod.RANDOM else np.repeat([0, 1, 2], [50, 15, 15])
    parts = [[event for event, number in zip(log, split, strict=True) if number == part] for part in range(3)]
    dataset = build_dataset(
        str(tmp_path),
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        visitors=[f"v{visitor}" for visitor in range(9)],  # three are unknown
        items=[f"i{item}" for item in range(5)],
        split_method=method,
        num_shards=int(generator.integers(1, 4)),
        block_rows=int(generator.integers(2, 30)),
    ).with_all_events()
    assert times(read(dataset)) == list(range(80))
    rows = TimelineRows.concatenate(list(dataset.training_events.read()))
    assert sorted(rows.timestamp_ms[rows.is_target == 1].tolist()) == list(range(80))
    of_known = rows.visitor[rows.visitor < 9]
    starts = rows.visitor[(rows.position == 0) & (rows.visitor < 9)]
    assert Counter(starts.tolist()) == Counter(set(of_known.tolist())), "a known visitor has one timeline"
