import weakref

import numpy as np
import pytest
import tensorflow as tf

from trainer.distributed import embeddings
from trainer.models import table_variables
from trainer.models.table_variables import fill, fill_rows, make_variable

ROWS = np.arange(24, dtype=np.float32).reshape(12, 2)


@pytest.mark.parametrize(
    ("needed", "num_updates"),
    # all rows: the chunks of 5 and 5 + 2 rows
    [([0], 1), ([11, 3, 3], 1), ([4, 5], 1), ([0, 4, 8, 11], 1), ([], 0), (list(range(12)), 2)],
)
def test_needed_rows_are_filled_in_few_updates_and_others_keep_their_values(
    needed: list[int], num_updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 5 * 2 * 4)
    monkeypatch.setattr(table_variables, "_MAX_GAP", 1)
    variable = make_variable((12, 2), "rows")
    fill(variable, lambda rows: ROWS[rows] - 100)
    np.testing.assert_array_equal(variable, ROWS - 100)
    read: list[int] = []
    updates: list[tf.IndexedSlices] = []
    update = variable.scatter_update
    monkeypatch.setattr(variable, "scatter_update", lambda rows: (updates.append(rows), update(rows)))

    def read_rows(rows: slice) -> np.ndarray:
        read.extend(range(rows.start, rows.stop))
        return ROWS[rows]

    fill_rows(variable, read_rows, np.array(needed, np.int64))
    assert (read, len(updates)) == (sorted(set(needed)), num_updates)
    expected = ROWS - 100
    expected[needed] = ROWS[needed]
    np.testing.assert_array_equal(variable, expected)


def test_rows_between_needed_ones_are_read_with_them_if_there_are_few() -> None:
    variable = make_variable((12, 2), "rows")
    fill_rows(variable, ROWS.__getitem__, np.array([2, 6]))
    np.testing.assert_array_equal(variable[2:7], ROWS[2:7])
    np.testing.assert_array_equal(variable[:2], 0)
    np.testing.assert_array_equal(variable[7:], 0)


def test_a_second_fill_frees_the_values_of_the_first_one_before_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[np.ndarray]] = []
    alive: list[list[int]] = []
    make = table_variables._zeros

    def make_and_record(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        array = make(shape, dtype)
        made.append(weakref.ref(array))
        return array

    def read(rows: slice) -> np.ndarray:
        alive.append([number for number, array in enumerate(made) if array() is not None])
        return ROWS[rows]

    monkeypatch.setattr(table_variables, "_zeros", make_and_record)
    variable = make_variable((12, 2), "rows")  # makes array 0
    for _ in range(2):
        fill(variable, read)
        np.testing.assert_array_equal(variable, ROWS)
    # each fill makes two arrays: zeros without memory, which replace the old values, and the new values
    assert alive == [[1, 2], [3, 4]]
