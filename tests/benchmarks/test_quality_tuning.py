"""Peers are tuned for each task, alone and with a trend, and no trial is repeated."""

import json

import numpy as np
import pytest

from benchmarks.peers.families import FAMILIES, TREND_SEARCH, Family
from benchmarks.peers.interface import PeerData
from benchmarks.quality_ranking import TASKS, ranked_blocks, task_cases
from benchmarks.quality_tuning import TrialFile, restore_trials, summarize, tune_family
from benchmarks.tuning import Search, best_of
from contract.schema import Split
from tests.trainer.tiny_runs import checkerboard_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return checkerboard_dataset(str(tmp_path_factory.mktemp("tuning")))


class FakeBlock:
    """A fake block. With the setting `a`, the metric is a for the task new and -a for repeats; a trend adds its β."""

    tasks = ("new", "repeats")

    def __init__(self):
        self.loads, self.ranks = [], 0

    def load(self, peer):
        self.loads.append(peer)

    def rank(self, task, trend=None):
        self.ranks += 1
        value = self.loads[-1] if task == "new" else -self.loads[-1]
        return {"ndcg@20": np.array([value + (trend.beta if trend else 0.0)])}


FAMILY = Family(lambda _, settings: settings["a"], Search({"a": 1.0}, {"a": (1.0, 2.0, 3.0)}), tasks=("new", "repeats"))


def test_each_task_has_its_own_best_settings_and_trend(tmp_path):
    found = tune_family("fake", FAMILY, None, FakeBlock(), TrialFile(tmp_path / "fake.json", "sum"))
    assert {task: summarize(result)["settings"] for task, result in found.items()} == {
        "new": {"a": 3.0},
        "repeats": {"a": 1.0},
    }
    best = max(TREND_SEARCH.values["beta"])
    assert {task: summarize(result)["validation_with_trend"] for task, result in found.items()} == {
        "new": 3.0 + best,
        "repeats": -1.0 + best,
    }
    assert best_of(found["new"]["trend_grid"])["settings"]["beta"] == best


def test_finished_trials_are_not_repeated(tmp_path):
    results = []
    for loads in (4, 0):  # three settings, and one again for the trend of the second task
        block = FakeBlock()
        results.append(tune_family("fake", FAMILY, None, block, TrialFile(tmp_path / "fake.json", "sum")))
        assert len(block.loads) <= loads
        assert (block.ranks == 0) == (loads == 0)
    assert results[0] == results[1]


def test_trials_on_another_dataset_are_rejected(tmp_path):
    tune_family("fake", FAMILY, None, FakeBlock(), TrialFile(tmp_path / "fake.json", "sum"))
    with pytest.raises(ValueError, match=r"fake\.json has trials on another dataset; delete it"):
        TrialFile(tmp_path / "fake.json", "other")


def test_the_trials_of_an_earlier_record_are_not_repeated(tmp_path):
    found = tune_family("fake", FAMILY, None, FakeBlock(), TrialFile(tmp_path / "first" / "fake.json", "sum"))
    record = tmp_path / "quality.json"
    record.write_text(json.dumps({"figures": {"shop": {"dataset_checksum": "sum", "grids": {"fake": found}}}}))
    restore_trials(record, "shop", "sum", tmp_path / "second")
    block = FakeBlock()
    assert tune_family("fake", FAMILY, None, block, TrialFile(tmp_path / "second" / "fake.json", "sum")) == found
    assert block.ranks == 0
    with pytest.raises(ValueError, match=r"quality\.json has no trials on this version of shop; run without --trials"):
        restore_trials(record, "shop", "other", tmp_path / "third")


def test_a_family_is_tuned_for_its_own_tasks_only_and_without_a_trend_if_it_takes_none(tmp_path):
    family = Family(FAMILY.fit, FAMILY.search, tasks=("repeats", "next"), takes_trend=False)
    found = tune_family("fake", family, None, FakeBlock(), TrialFile(tmp_path / "fake.json", "sum"))
    assert list(found) == ["repeats"]
    assert found["repeats"]["trend_grid"] == []
    assert summarize(found["repeats"])["trend"] is None


def test_every_search_starts_from_tried_values_and_has_few_trials():
    for name, family in FAMILIES.items():
        assert set(family.search.values) <= set(family.search.begin), name
        assert all(family.search.begin[setting] in values for setting, values in family.search.values.items()), name
        trials = 1 + sum(len(values) - 1 for values in family.search.values.values())
        assert trials <= 14, name
        assert set(family.tasks) <= {task for tasks in TASKS.values() for task in tasks}


def test_every_family_fits_and_ranks_a_small_dataset(dataset, tmp_path):
    pytest.importorskip("implicit", reason="implicit is not here: make setup")
    data = PeerData(dataset)
    cases = task_cases(dataset, Split.VALIDATION, "returning_visitors", max_cases=50, max_scores=10**6)
    (block,) = ranked_blocks(cases, data.events)
    for name, family in FAMILIES.items():
        small = {"factors": 4, "iterations": 2, "max_items": 100}
        begin = {key: small.get(key, value) for key, value in family.search.begin.items()}
        block.load(family.fit(data, begin))
        values = block.rank("new")["ndcg@20"]
        assert ((values >= 0) & (values <= 1)).all(), name
        # the checkerboard's visitors choose items of one colour, which popularity does not know
        if family.is_neighbour:
            assert values.mean() > 0.5, name
