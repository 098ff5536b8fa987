from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from tests.trainer.dataset_builder import build_dataset
from trainer.data.interactions import read_interactions, row_batches

DAY_MS = 24 * 60 * 60 * 1000


def test_the_weights_of_a_pair_depend_on_kind_and_age_and_add_up(tmp_path: Path) -> None:
    dataset = build_dataset(
        str(tmp_path),
        train=[
            ("a", "x", "view", 0),
            ("a", "x", "transaction", 2 * DAY_MS),
            ("b", "y", "view", DAY_MS),
            ("b", "x", "addtocart", DAY_MS),
            ("stranger", "x", "view", 0),
            ("b", "unknown", "view", 0),
        ],
        visitors=["a", "b"],
        items=["x", "y"],
    )
    weights = (1.0, 0.0, 3.0)
    # the cart event of b and x has weight 0; unknown visitors and items have no row or column
    np.testing.assert_array_equal(read_interactions(dataset, weights).toarray(), [[4, 0], [0, 1]])
    assert read_interactions(dataset, weights).nnz == 2
    # two days before the last event: a quarter of the weight; one day: half
    np.testing.assert_allclose(read_interactions(dataset, weights, 1.0).toarray(), [[3.25, 0], [0, 0.5]])
    # the sums are raised to the power, so an entry without weight stays empty
    np.testing.assert_allclose(read_interactions(dataset, weights, power=0.5).toarray(), [[2, 0], [0, 1]])
    np.testing.assert_allclose(read_interactions(dataset, weights, power=0.0).toarray(), [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match=r"no training event .* raise loss.event_weights"):
        read_interactions(dataset, (0.0, 0.0, 0.0))


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("batch_entries", [1, 8, 1000])
def test_batches_contain_every_row_and_entry_once_at_their_owner(replicas: int, batch_entries: int) -> None:
    generator = np.random.default_rng(0)
    dense = (generator.random((40, 20)) * (generator.random((40, 20)) < 0.3)).astype(np.float32)
    dense[7] = 0
    matrix = sp.csr_matrix(dense)
    found, rows = np.zeros((40, 20), np.float32), []
    for batch in row_batches(matrix, replicas, batch_entries):
        assert batch.row.shape[1] * batch.length <= batch.column.shape[1]
        for replica in range(replicas):
            for index, row in enumerate(batch.row[replica]):
                span = slice(index * batch.length, (index + 1) * batch.length)
                if row < 0:
                    assert not batch.weight[replica, span].any()
                    continue
                assert row % replicas == replica
                rows.append(row)
                np.add.at(found[row], batch.column[replica, span], batch.weight[replica, span])
        assert not batch.weight[:, batch.row.shape[1] * batch.length :].any()
    assert sorted(rows) == list(range(40))
    np.testing.assert_array_equal(found, dense)


def test_a_row_is_padded_by_less_than_half_of_its_length() -> None:
    lengths = np.arange(1, 200)
    matrix = sp.csr_matrix((lengths[:, None] > np.arange(200)).astype(np.float32))
    for batch in row_batches(matrix, 1, 1000):
        assert (batch.length < 1.5 * lengths[batch.row[0]]).all()
