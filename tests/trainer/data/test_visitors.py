from dataclasses import replace

import pytest

from common.errors import ContractError
from tests.trainer.dataset_builder import build_dataset
from trainer.data import visitors
from trainer.data.visitors import read_visitor_timelines


@pytest.fixture
def dataset(tmp_path):
    """Builds a dataset with one timeline per block; the shards of the splits contain different visitors."""
    return build_dataset(
        str(tmp_path),
        train=[("anna", "b", "view", 2), ("anna", "a", "view", 1), ("rare", "b", "view", 3), ("bob", "a", "view", 4)],
        validation=[("new", "a", "view", 10), ("anna", "unknown", "view", 11)],
        test=[
            ("newer", "b", "view", 20),
            ("new", "b", "view", 21),
            ("rare", "a", "view", 22),
            ("anna", "a", "view", 20),
        ],
        visitors=["anna", "bob", "absent"],
        items=["a", "b"],
        num_shards=2,
        block_rows=1,
    )


def test_each_event_is_in_the_timeline_of_its_visitor_once_in_order_of_time(dataset):
    ids, rows = read_visitor_timelines(dataset)
    # the vocabulary, then the others by their first timeline: in training, validation and test
    assert ids == ["anna", "bob", "absent", "rare", "new", "newer"]
    # item 2 is the out-of-vocabulary bucket
    timelines = {name: rows.item[rows.visitor == index].tolist() for index, name in enumerate(ids)}
    assert timelines == {"anna": [0, 1, 2, 0], "bob": [0], "absent": [], "rare": [1, 0], "new": [0, 1], "newer": [1]}
    assert rows.visitor.tolist() == sorted(rows.visitor)


def test_a_dataset_without_the_ids_of_new_visitors_is_refused(dataset, monkeypatch):
    read = visitors.read_identified_timelines
    monkeypatch.setattr(visitors, "read_identified_timelines", lambda shard: (read(shard)[0], []))
    with pytest.raises(ContractError, match="lacks the ids of visitors outside the vocabulary; prepare"):
        read_visitor_timelines(replace(dataset))
