from pathlib import Path

import numpy as np

from tests.trainer.dataset_builder import Event, build_dataset
from trainer.models.item_features import MAX_FEATURES, ItemFeatures, ItemRows, read_item_features


def test_an_items_features_are_its_categories_its_price_bucket_and_its_property_values(tmp_path: Path) -> None:
    dataset = build_dataset(
        str(tmp_path),
        train=[Event("v", "i0")],
        visitors=["v"],
        items=["i0", "i1", "i2"],
        categories={"i0": ["a", "b"], "i1": ["a"]},
        prices={"i1": 3},
        property_values={"i1": ["x", "y"], "i0": ["y"]},
    )
    features = read_item_features(dataset)
    # rows: 0 and 1 are categories a and b, 2 is their bucket, 3 … 6 are price buckets 0 … 3, 7 and 8 are values x and y
    assert features.num_features == 2 + 1 + 4 + 2 + 1
    assert features.feature.tolist() == [[0, 1, 8, 0], [0, 6, 7, 8], [0, 0, 0, 0]]
    np.testing.assert_allclose(features.weight, [[3**-0.5] * 3 + [0], [0.5] * 4, [0] * 4], rtol=1e-6)
    table = np.arange(features.num_features, dtype=np.float32)[:, None] * [1, 10]
    # (0 + 1 + 8) / √3 and (0 + 6 + 7 + 8) / 2
    np.testing.assert_allclose(features.rows(table, slice(0, 3)), np.outer([9 / 3**0.5, 10.5, 0], [1, 10]), rtol=1e-6)


def test_an_empty_catalogue_has_no_features(tmp_path: Path) -> None:
    features = read_item_features(
        build_dataset(str(tmp_path), train=[Event("v", "i")], visitors=["v"], items=["i", "j"])
    )
    assert features.width == 0
    assert features.weight.shape == (2, 0)


def test_only_the_first_features_of_an_item_are_used(tmp_path: Path) -> None:
    words = [f"w{number:03d}" for number in range(50)]
    dataset = build_dataset(
        str(tmp_path), train=[Event("v", "i")], visitors=["v"], items=["i"], property_values={"i": words}
    )
    features = read_item_features(dataset)
    # rows 0 and 1 are the bucket of the categories and price bucket 0
    assert features.feature.tolist() == [list(range(2, 2 + MAX_FEATURES))]
    np.testing.assert_allclose((features.weight**2).sum(), 1, rtol=1e-5)


def test_an_item_without_events_has_no_row_of_its_own_even_among_items_with_events() -> None:
    none = ItemFeatures(np.zeros((4, 0), np.int64), np.zeros((4, 0), np.float32), [])
    own = np.array([[1, 2, 5], [9, 9, -9], [3, 4, -1], [7, 7, 7]], np.float32)
    rows = ItemRows(none, own, np.array([True, False, True, False]), features=None)
    # the second and the last item are as unpopular as the least popular item with events, whose bias is -1
    np.testing.assert_array_equal(rows.read(slice(0, 4)), [[1, 2, 5], [0, 0, -1], [3, 4, -1], [0, 0, -1]])
    np.testing.assert_array_equal(rows.read(slice(1, 3)), [[0, 0, -1], [3, 4, -1]])
