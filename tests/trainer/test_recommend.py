import json

import numpy as np
import pytest

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer.recommend import read_visitor_ids, visitor_histories, write_recommendations

ITEMS = ["a", "b", "c", "d"]


@pytest.fixture
def dataset(tmp_path):
    return build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "b", "view", 2), ("anna", "a", "view", 1), ("bob", "d", "view", 3)],
        validation=[("anna", "unknown", "view", 10)],
        test=[("anna", "a", "view", 20), ("bob", "a", "view", 21), ("stranger", "c", "view", 22)],
        visitors=["anna", "bob", "absent"],
        items=ITEMS,
    )


@pytest.fixture
def model():
    """Anna likes c, d, b, a; bob d, c, b, a; whoever is unknown gets a, b, c, d."""
    visitors, items = np.array([[1, 0], [0, 1], [0, 0]]), np.array([[1, 1], [2, 2], [9, 8], [8, 9]])
    return DotModel(visitors, items, np.array([0.4, 0.3, 0.2, 0.1]))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_histories_hold_each_event_once_in_order_of_time(dataset):
    histories = visitor_histories(dataset)
    # index 4 is the bucket of unknown items; the third visitor has no event in this dataset
    assert histories.padded(0, 3)[0].tolist() == [[0, 1, 4, 0], [3, 0, 0, 0], [0, 0, 0, 0]]
    assert histories.lengths.tolist() == [4, 2, 0]


def test_everyone_with_a_history_gets_new_items_best_first(dataset, model, tmp_path):
    summary = write_recommendations(model, dataset, str(tmp_path / "out"), k=2)
    rows = lines(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")
    assert [row["visitor_id"] for row in rows] == ["anna", "bob"]
    # anna has seen a and b; bob d in training and a in the test window
    assert [[item["item_id"] for item in row["items"]] for row in rows] == [["c", "d"], ["c", "b"]]
    assert rows[0]["items"][0]["score"] == np.float32(9.2)
    assert (summary["visitors"], summary["visitors_unknown"], summary["k"]) == (2, 0, 2)
    assert summary["files"] == [str(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")]
    assert json.loads((tmp_path / "out" / "recommendations.json").read_text()) == summary


def test_a_list_is_shorter_where_too_few_items_are_left(dataset, model, tmp_path):
    write_recommendations(model, dataset, str(tmp_path / "out"), k=4)
    rows = lines(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")
    assert [len(row["items"]) for row in rows] == [2, 2]


def test_visitors_asked_for_are_answered_in_their_order_and_unknown_ones_with_popular_items(dataset, model, tmp_path):
    summary = write_recommendations(model, dataset, str(tmp_path / "out"), 3, ["nobody", "bob"])
    rows = lines(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")
    assert [row["visitor_id"] for row in rows] == ["nobody", "bob"]
    assert [item["item_id"] for item in rows[0]["items"]] == ["a", "b", "c"]
    assert summary["visitors_unknown"] == 1


def test_many_visitors_are_divided_into_shards(dataset, model, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.recommend.SHARD_VISITORS", 2)
    summary = write_recommendations(model, dataset, str(tmp_path / "out"), 1, ["anna", "bob", "x", "y", "z"])
    names = [f"recommendations-{shard:05d}-of-00003.jsonl" for shard in range(3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "recommendations.json"]
    ids = [row["visitor_id"] for name in names for row in lines(tmp_path / "out" / name)]
    assert ids == ["anna", "bob", "x", "y", "z"]
    assert len(summary["files"]) == 3


@pytest.mark.parametrize("k", [0, 5])
def test_a_k_outside_the_catalogue_is_refused(dataset, model, tmp_path, k):
    with pytest.raises(ValueError, match="k must be from 1 to 4"):
        write_recommendations(model, dataset, str(tmp_path / "out"), k)


def test_nobody_to_answer_is_refused(dataset, model, tmp_path):
    with pytest.raises(ValueError, match="nobody to recommend to"):
        write_recommendations(model, dataset, str(tmp_path / "out"), 1, [])


def test_a_failure_on_the_way_leaves_nothing(dataset, model, tmp_path):
    model.vectors.assign(np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="not finite"):
        write_recommendations(model, dataset, str(tmp_path / "out" / "lists"), 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_earlier_recommendations_are_not_replaced(dataset, model, tmp_path):
    write_recommendations(model, dataset, str(tmp_path / "out"), 1)
    with pytest.raises(FileExistsError):
        write_recommendations(model, dataset, str(tmp_path / "out"), 1)


def test_a_visitor_file_has_one_id_a_line_and_each_counts_once(tmp_path):
    path = tmp_path / "visitors.txt"
    path.write_bytes("bob\r\nänna b\n\nbob\nlast\u2028one".encode())
    assert read_visitor_ids(str(path)) == ["bob", "änna b", "last\u2028one"]
