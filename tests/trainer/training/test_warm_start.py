import shutil
from pathlib import Path

import numpy as np
import pytest

from common import storage
from common.errors import ContractError
from tests.trainer.dataset_builder import Event, build_dataset
from tests.trainer.fetches import count_fetches
from tests.trainer.tiny_runs import make_config
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed import embeddings
from trainer.distributed.embeddings import initialize
from trainer.distributed.preemption import StopRequest
from trainer.distributed.replicas import start_replicas
from trainer.models.build import build_training_model
from trainer.models.trained_run import load_inference_model
from trainer.runs import checkpoint
from trainer.runs.checkpoint import TrainState
from trainer.runs.record import read_record
from trainer.train import Preempted, train
from trainer.training.warm_start import category_means, warm_start_from

CATEGORIES = {"a": ["tools"], "b": ["tools", "saws"], "c": ["tools", "saws"], "d": ["tools", "drills"], "e": ["paint"]}


def build_day(root: Path, items: list[str], visitors: list[str]) -> Dataset:
    """Builds a dataset where all visitors view all items, earlier items more often."""
    rows = [
        Event(visitor, item, "view", position)
        for position, item in enumerate(items)
        for visitor in visitors
        for _ in range(len(items) - position)
    ]
    categories = {item: CATEGORIES[item] for item in items}
    last = [Event(visitor, items[0], "view", 1000) for visitor in visitors]
    return build_dataset(str(root), train=rows, validation=last, visitors=visitors, items=items, categories=categories)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """Returns the datasets of yesterday and today.

    Yesterday has items a and b. Today has more items, in another order, and visitor x instead of w.
    """
    root = tmp_path_factory.mktemp("days")
    yesterday = build_day(root / "yesterday", ["a", "b"], ["v", "w"])
    return yesterday, build_day(root / "today", ["c", "b", "a", "d", "e"], ["x", "v"])


def make_state(config: RunConfig, dataset: Dataset, count: int = 2) -> TrainState:
    model = build_training_model(config, dataset, start_replicas(count, None))
    return TrainState(model.tables, model.dense, [])


def whole(state: TrainState, name: str) -> np.ndarray:
    shards = state.arrays()[name]
    values = np.empty((shards.rows, shards.dim), np.float32)
    for replica, shard in shards.shards.items():
        values[replica :: len(shards.shards)] = shard.numpy()
    return values


def test_a_new_item_starts_from_the_mean_of_the_nearest_category_that_has_carried_items(
    days: tuple[Dataset, Dataset],
) -> None:
    # today's order: c, b, a, d, e
    vectors = np.array([[9, 9], [1, 2], [3, 6], [9, 9], [9, 9]], np.float32)
    rows, means = category_means(days[1], np.array([False, True, True, False, False]), vectors)
    # c is a saw like b; no drill is carried, but the tools a and b are; paint has no carried item
    assert rows.tolist() == [0, 3]
    np.testing.assert_allclose(means, [[1, 2], [2, 4]])


@pytest.mark.parametrize(
    ("preset", "settings"),
    [("mf", ["model.history_length=0"]), ("mf", []), ("notebook-nn", []), ("nn", ["model.visitor_min_events=1"])],
)
def test_rows_are_carried_over_by_id_with_their_slots(
    preset: str, settings: list[str], days: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    yesterday, today = days
    config = make_config(preset, "epochs=1", *settings)
    train(config, data=yesterday.root, workdir=str(tmp_path), stop=StopRequest())
    step = checkpoint.choose_step(str(tmp_path))
    metadata = checkpoint.read_state(str(tmp_path), step)
    state = make_state(config, today)
    carried = warm_start_from(str(tmp_path), config, today, state)
    fresh = make_state(config, today)
    for name, table in fresh.tables.items():
        initialize(table, name=name, seed=config.seed, stddev=config.model.initial_stddev)
    slot = next(iter(state.tables["item"].slots))
    for kind in ("values", slot):
        old = np.asarray(checkpoint.read_array(str(tmp_path), metadata, f"item.{kind}"))
        new = whole(state, f"item.{kind}")
        np.testing.assert_array_equal(new[[2, 1]], old[:2])  # a and b
        np.testing.assert_array_equal(new[5], old[2])  # the row of unknown items, or of all other items
    values = whole(state, "item.values")
    np.testing.assert_allclose(values[0], values[1])  # c starts as b
    np.testing.assert_allclose(values[3], (values[1] + values[2]) / 2, rtol=1e-6)  # d between a and b
    np.testing.assert_array_equal(values[4], whole(fresh, "item.values")[4])  # e is initialised as in any run
    counts = {"rows": 6, "carried": 3, "from_category": 2, "new": 1, "dropped": 0}
    assert carried["tables"]["item"] == counts
    if "visitor" in state.tables:
        old = np.asarray(checkpoint.read_array(str(tmp_path), metadata, "visitor.values"))
        np.testing.assert_array_equal(whole(state, "visitor.values")[1], old[0])
        # v and the row of unknown visitors are carried; x is new, w is dropped
        assert carried["tables"]["visitor"] == {"rows": 3, "carried": 2, "from_category": 0, "new": 1, "dropped": 1}
    if preset == "nn":
        # saws, tools and the row of unknown categories
        assert carried["tables"]["feature"]["carried"] >= 3
    for variable, weight in zip(state.dense, checkpoint.read_dense_weights(str(tmp_path), step), strict=True):
        np.testing.assert_array_equal(np.asarray(variable), weight)


def test_a_run_in_a_store_is_verified_and_then_read_with_one_fetch_per_file(
    days: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yesterday, today = days
    workdir, config = "memory://warm-start/run", make_config("mf", "epochs=1", "model.history_length=0")
    train(config, data=yesterday.root, workdir=str(tmp_path), stop=StopRequest())
    storage.upload_all(str(tmp_path), storage.list_files(str(tmp_path)), workdir)
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 1)  # a row per chunk
    monkeypatch.setattr(embeddings, "_COMPUTED_ROWS", 1)
    fetches = count_fetches(monkeypatch)
    local, stored = make_state(config, today), make_state(config, today)
    warm_start_from(str(tmp_path), config, today, local)
    warm_start_from(workdir, config, today, stored)
    arrays = {f"{table}.{kind}" for table in ("item", "visitor") for kind in ("values", "accumulator")}
    for name in arrays:
        np.testing.assert_array_equal(whole(stored, name), whole(local, name), err_msg=name)
    assert {name: fetches[f"{name}-00000-of-00001.npy"] for name in arrays} == dict.fromkeys(arrays, 2)
    fetches.clear()
    load_inference_model(workdir, read_record(workdir), checkpoint.choose_step(workdir), yesterday)
    vectors = {name for name in arrays if name.endswith(".values")}
    assert {name: fetches[f"{name}-00000-of-00001.npy"] for name in vectors} == dict.fromkeys(vectors, 2)


def test_a_warm_started_run_records_it_and_resumes_with_equal_results(
    days: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    yesterday, today = days
    config = make_config("mf", "input.batch_size=4", "steps_per_execution=1")
    first = str(tmp_path / "first")
    train(config, data=yesterday.root, workdir=first, stop=StopRequest())
    warm = {"data": today.root, "warm_start": first}
    result = train(config, workdir=str(tmp_path / "whole"), stop=StopRequest(), **warm)
    assert result["warm_start"]["tables"]["item"]["carried"] == 3
    assert read_record(str(tmp_path / "whole")).warm_start == result["warm_start"]
    request = StopRequest()
    request.request()
    with pytest.raises(Preempted, match="stopped before step 0"):
        train(config, workdir=str(tmp_path / "stopped"), stop=request, **warm)
    train(config, data=today.root, workdir=str(tmp_path / "stopped"), stop=StopRequest())
    one, two = (checkpoint.read_weights(str(tmp_path / name), "last") for name in ("whole", "stopped"))
    np.testing.assert_array_equal(one.tables["item"], two.tables["item"])
    with pytest.raises(ValueError, match=r"warm start: .*first, now elsewhere"):
        train(config, data=today.root, workdir=str(tmp_path / "whole"), warm_start="elsewhere", stop=StopRequest())


def test_another_dataset_is_refused_with_the_differences_and_advice(
    days: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    config = make_config("mf")
    train(config, data=days[0].root, workdir=str(tmp_path), stop=StopRequest())
    with pytest.raises(ValueError, match=r"items vocabulary: 2 ids, .*now 5 ids.*--warm-start"):
        train(config, data=days[1].root, workdir=str(tmp_path), stop=StopRequest())


def test_a_run_of_another_width_or_without_its_dataset_is_refused(
    days: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    data = str(tmp_path / "data")
    shutil.copytree(days[0].root, data)
    config = make_config("mf")
    train(config, data=data, workdir=str(tmp_path / "run"), stop=StopRequest())
    other = make_config("mf", "model.dim=4")
    with pytest.raises(ValueError, match=r"widths \{'item': 9\}, but this run trains .* with \{'item': 5\}"):
        warm_start_from(str(tmp_path / "run"), other, days[1], make_state(other, days[1]))
    shutil.rmtree(data)
    with pytest.raises(ContractError, match="for the ids of its vectors, but the dataset cannot be read "):
        warm_start_from(str(tmp_path / "run"), config, days[1], make_state(config, days[1]))
    shutil.copytree(days[1].root, data)
    assert open_dataset(data).checksum == days[1].checksum
    with pytest.raises(ContractError, match="contains a different dataset now; restore"):
        warm_start_from(str(tmp_path / "run"), config, days[1], make_state(config, days[1]))


def test_after_a_failed_warm_start_the_workdir_can_be_used_again(days: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    yesterday, today = days
    first, other, config = str(tmp_path / "first"), str(tmp_path / "other"), make_config("mf")
    train(config, data=yesterday.root, workdir=first, stop=StopRequest())
    train(make_config("mf", "model.is_scale_learnt=true"), data=yesterday.root, workdir=other, stop=StopRequest())
    given = {"data": today.root, "workdir": str(tmp_path / "warm"), "stop": StopRequest()}
    with pytest.raises(ValueError, match="frist"):
        train(config, warm_start=str(tmp_path / "frist"), **given)
    with pytest.raises(ValueError, match=r"dense weights have shapes \[\(\)\], but this model expects \[\]"):
        train(config, warm_start=other, **given)
    assert train(config, warm_start=first, **given)["warm_start"]["tables"]["item"]["carried"] == 3
