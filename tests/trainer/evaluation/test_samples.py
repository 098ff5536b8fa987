import numpy as np

from tests.trainer.dataset_builder import Event, build_dataset
from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.evaluation.samples import sample_recommendations


def test_items_have_their_id_title_and_category(tmp_path):
    dataset = build_dataset(
        str(tmp_path),
        train=[Event("anna", f"item-{number}") for number in range(3)],
        visitors=["anna"],
        items=["item-0", "item-1", "item-2"],
        categories={"item-1": ["7", "70"]},
        titles={"item-0": "Sneakers, blue", "item-1": "Boots"},
    )
    # item 5 is not in the vocabulary; item 0 is seen and hidden
    cases = cases_of([[5, 0]], [[1]], num_items=3)
    systems = {"model": TableScorer(np.array([[3.0, 2.0, 1.0]]))}
    (sample,) = sample_recommendations(systems, cases, dataset, seed=0)
    names = ("item_id", "title", "category_id")
    assert [tuple(row[name] for name in names) for row in sample["history"]] == [
        (None, None, None),
        ("item-0", "Sneakers, blue", None),
    ]
    boots = {"item_id": "item-1", "title": "Boots", "category_id": "70"}
    assert sample["relevant"] == [boots]
    assert sample["systems"]["model"] == [
        {**boots, "is_hit": True},
        {"item_id": "item-2", "title": None, "category_id": None, "is_hit": False},
    ]
