import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import storage
from common.sealed_json import decode_sealed, encode_sealed
from tests.trainer.fetches import count_fetches
from trainer.config.optimizers import AdamConfig
from trainer.distributed import embeddings
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import dense_optimizer, row_optimizer
from trainer.distributed.replicas import Replicas, start_replicas
from trainer.runs import checkpoint
from trainer.runs.checkpoint import StoredTable, Table, TrainState
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.runs.layout import RunLayout

ROWS = {"visitor": 11, "item": 5}


def make_parts(replicas: Replicas, *, fill: int | None = None) -> TrainState:
    """Builds tables and dense weights: zeros, or numbers that differ everywhere and depend on `fill`."""
    tables = {
        name: ShardedTable(rows=rows, dim=3, replicas=replicas, optimizer=row_optimizer(AdamConfig()))
        for name, rows in ROWS.items()
    }
    with replicas.strategy.scope():
        dense = [keras.Variable(np.zeros((2, 2), np.float32))]
        optimizer = dense_optimizer(AdamConfig())
        optimizer.build(dense)
    parts = TrainState(tables, dense, optimizer.variables)
    if fill is not None:
        for number, shards in enumerate(parts.arrays().values()):
            shards.assign(0, np.arange(shards.rows * 3, dtype=np.float32).reshape(-1, 3) + 1000 * number + fill)
        for number, variable in enumerate([*parts.dense, *parts.optimizer]):
            variable.assign(np.full(variable.shape, number + fill))
    return parts


def contents(parts: TrainState) -> dict[str, np.ndarray]:
    found = {}
    for name, shards in parts.arrays().items():
        found[name] = np.empty((shards.rows, shards.dim), np.float32)
        for replica, shard in shards.shards.items():
            found[name][replica :: len(shards.shards)] = shard.numpy()
    for number, variable in enumerate([*parts.dense, *parts.optimizer]):
        found[f"dense {number}"] = np.asarray(variable)
    return found


def save(workdir: str, step: int, count: int = 1) -> TrainState:
    replicas = start_replicas(count, None)
    parts = make_parts(replicas, fill=step)
    writer = CheckpointWriter(workdir, parts, replicas, run="r", steps_per_epoch=4)
    writer.begin(step)
    assert writer.finish()
    return parts


@pytest.fixture
def in_store(tmp_path: Path) -> Iterator[str]:
    """A workdir in a store, which this process owns."""
    workdir = f"memory://checkpoints/{tmp_path.name}"
    with storage.own_directory(workdir):
        yield workdir


@pytest.mark.parametrize(("writers", "readers"), [(1, 1), (1, 2), (4, 1), (2, 4)])
def test_a_checkpoint_is_restored_by_any_number_of_replicas(
    tmp_path: Path, writers: int, readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 2 * 3 * 4)  # two rows
    written = save(str(tmp_path), 6, writers)
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 3 * 3 * 4)
    read = make_parts(start_replicas(readers, None))
    checkpoint.restore(str(tmp_path), read, 6)
    expected = contents(written)
    assert {"visitor.values", "visitor.first_moment", "item.second_moment", "dense 1"} <= set(expected)
    for name, found in contents(read).items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


def test_weights_are_whole_tables_in_natural_order_without_the_optimizer(tmp_path: Path) -> None:
    written = contents(save(str(tmp_path), 3, 2))
    weights = checkpoint.read_weights(str(tmp_path), "last")
    assert list(weights.tables) == ["visitor", "item"]
    for name, table in weights.tables.items():
        np.testing.assert_array_equal(table, written[f"{name}.values"])
    assert len(weights.dense) == 1
    np.testing.assert_array_equal(weights.dense[0], np.full((2, 2), 3))


def test_rows_of_a_stored_table_are_read_by_index_in_any_order(tmp_path: Path) -> None:
    written = contents(save(str(tmp_path), 3, 2))
    table = checkpoint.read_array(str(tmp_path), checkpoint.read_state(str(tmp_path), 3), "visitor.first_moment")
    for rows in ([10, 0, 3, 3, 7], [4], []):
        np.testing.assert_array_equal(table.gather(np.array(rows, np.int64)), written["visitor.first_moment"][rows])


@pytest.mark.parametrize("readers", [2, 3])
def test_restoring_from_a_store_fetches_each_file_once(
    in_store: str, readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = save(in_store, 3, 2)
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 2 * 3 * 4)  # two rows, so that each array is read in several chunks
    fetches = count_fetches(monkeypatch)
    read = make_parts(start_replicas(readers, None))
    checkpoint.restore(in_store, read, 3)
    for name, found in contents(read).items():
        np.testing.assert_array_equal(found, contents(written)[name], err_msg=name)
    assert fetches == Counter(
        f"{table}.{kind}-0000{replica}-of-00002.npy"
        for table in ROWS
        for kind in ("values", "first_moment", "second_moment")
        for replica in range(2)
    )


def test_tables_kept_open_are_fetched_once_and_others_for_each_call(
    in_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = contents(save(in_store, 3, 2))["visitor.values"]
    weights = checkpoint.read_weights_of_step(in_store, 3)
    fetches = count_fetches(monkeypatch)

    def read_twice(table: Table) -> None:
        assert isinstance(table, StoredTable)
        np.testing.assert_array_equal(table[2:7], expected[2:7])
        np.testing.assert_array_equal(table.gather(np.array([9, 4, 4])), expected[[9, 4, 4]])

    with weights.kept_open() as kept:
        read_twice(kept.tables["visitor"])
        assert sorted(fetches.values()) == [1, 1], "one fetch for each of the two files"
    read_twice(weights.tables["visitor"])
    assert sorted(fetches.values()) == [3, 3]
    assert not os.listdir(storage.files.process_cache()._folder), "released"


def test_an_array_is_a_plain_numpy_file(tmp_path: Path) -> None:
    written = contents(save(str(tmp_path), 3, 2))
    folder = RunLayout(str(tmp_path)).checkpoint(3)
    second = np.load(f"{folder}/visitor.values-00001-of-00002.npy")
    np.testing.assert_array_equal(second, written["visitor.values"][1::2])


def test_a_run_without_checkpoints_has_no_last_step(tmp_path: Path) -> None:
    assert checkpoint.last_step(str(tmp_path)) is None
    with pytest.raises(ValueError, match="has no intact checkpoint"):
        checkpoint.read_weights(str(tmp_path))


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "no state", "bad state", "bad name", "directory"])
def test_a_damaged_last_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    workdir = str(tmp_path)
    save(workdir, 4)
    save(workdir, 8)
    folder = Path(RunLayout(workdir).checkpoint(8))
    array = folder / "item.values-00000-of-00001.npy"
    content = array.read_bytes()
    match damage:
        case "flip":
            array.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            array.write_bytes(content[:-4])
        case "missing":
            array.unlink()
        case "no state":
            (folder / "state.json").unlink()
        case "bad state":
            (folder / "state.json").write_text('{"step": 8')
        case "directory":
            array.unlink()
            array.mkdir()
        case "bad name":
            state = folder / "state.json"
            state.write_text(state.read_text().replace('"item.values"', '"item.valuez"'))
    with caplog.at_level(logging.WARNING):
        assert checkpoint.last_step(workdir) == 4
    assert "step-000000008: " in caplog.text
    checkpoint.record_validation(workdir, 8, 0.5, metric="m", is_higher_better=True)
    assert checkpoint.choose_step(workdir, "best") == 4


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with checkpoints of the steps 4 and 8."""
    workdir = str(tmp_path_factory.mktemp("run"))
    save(workdir, 4)
    save(workdir, 8)
    return workdir


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damaged_byte_of_the_metadata_skips_the_checkpoint_or_is_harmless(
    two_checkpoints: str, data: st.DataObject
) -> None:
    state = Path(RunLayout(two_checkpoints).checkpoint(8), "state.json")
    whole, metadata = state.read_bytes(), checkpoint.read_state(two_checkpoints, 8)
    position, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.binary(min_size=1, max_size=1))
    state.write_bytes(whole[:position] + byte + whole[position + 1 :])
    try:
        step = checkpoint.last_step(two_checkpoints)
        assert step == 4 or checkpoint.read_state(two_checkpoints, 8) == metadata
    finally:
        state.write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 4},
        {"epoch": -1},
        {"step_in_epoch": 0.5},
        {"replicas": 0},
        {"replicas": 2},
        {"arrays": []},
        {"arrays": {"item.values": [5]}},
        {"arrays": {"item.values": [5, -3]}},
        {"files": {"../dense.npz": ""}},
    ],
    ids=str,
)
def test_sealed_metadata_with_an_impossible_value_is_skipped(
    two_checkpoints: str, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    state = Path(RunLayout(two_checkpoints).checkpoint(8), "state.json")
    whole = state.read_bytes()
    state.write_bytes(encode_sealed(decode_sealed(whole) | change))
    try:
        assert checkpoint.last_step(two_checkpoints) == 4
    finally:
        state.write_bytes(whole)
    assert "state.json is damaged" in caplog.text


def test_an_unfinished_checkpoint_is_ignored_and_replaced(tmp_path: Path) -> None:
    workdir = str(tmp_path)
    save(workdir, 4)
    partial = Path(RunLayout(workdir).checkpoint(8) + ".partial")
    partial.mkdir()
    (partial / "item.values-00000-of-00001.npy").write_bytes(b"half")
    assert checkpoint.last_step(workdir) == 4
    save(workdir, 8)
    assert checkpoint.last_step(workdir) == 8
    assert not partial.exists()


def test_a_second_checkpoint_of_a_step_replaces_the_first(tmp_path: Path) -> None:
    workdir = str(tmp_path)
    save(workdir, 4, 2)
    save(workdir, 4, 1)
    assert checkpoint.last_step(workdir) == 4
    assert len(list(Path(RunLayout(workdir).checkpoint(4)).glob("visitor.values*"))) == 1


@pytest.mark.parametrize(
    "content", ["", '{"metric": "m"', "[]", '{"metric": "m", "values": {"4": "x"}}', '{"values": {"4": NaN}}']
)
def test_damaged_validations_are_refused_by_name(tmp_path: Path, content: str) -> None:
    path = Path(RunLayout(str(tmp_path)).checkpoints) / "validations.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=r"checkpoints/validations.json is damaged \(.*\); remove it to continue"):
        checkpoint.read_validations(str(tmp_path))


@pytest.mark.parametrize(("is_higher_better", "best"), [(True, 8), (False, 4)])
def test_the_best_and_the_last_two_are_kept(tmp_path: Path, is_higher_better: bool, best: int) -> None:
    workdir = str(tmp_path)
    for step, value in [(4, 0.1), (8, 0.4), (12, 0.4), (16, 0.3), (20, 0.2)]:
        save(workdir, step)
        checkpoint.record_validation(workdir, step, value, metric="m", is_higher_better=is_higher_better)
        checkpoint.keep_best_and_last(workdir)
    kept = sorted(path.name for path in Path(RunLayout(workdir).checkpoints).iterdir() if path.is_dir())
    assert kept == sorted(f"step-{step:09d}" for step in (best, 16, 20))
    assert checkpoint.best_step(workdir) == best
    # `save` fills by step
    assert checkpoint.read_weights(workdir, "best").tables["visitor"][:1][0, 0] == best
    assert checkpoint.read_weights(workdir, "last").tables["visitor"][:1][0, 0] == 20


def test_without_validations_the_last_checkpoint_is_the_best(tmp_path: Path) -> None:
    save(str(tmp_path), 4)
    save(str(tmp_path), 8)
    assert checkpoint.read_weights(str(tmp_path)).tables["visitor"][:1][0, 0] == 8


def test_checkpoints_differ_in_the_checksum_of_their_weights(tmp_path: Path) -> None:
    save(str(tmp_path), 3)
    save(str(tmp_path), 6)
    first = checkpoint.weights_checksum(str(tmp_path), 3)
    assert checkpoint.weights_checksum(str(tmp_path), 6) != first
    save(str(tmp_path), 3)
    assert checkpoint.weights_checksum(str(tmp_path), 3) == first


def test_a_validation_drops_those_of_later_steps(tmp_path: Path) -> None:
    workdir = str(tmp_path)
    for step, value in [(4, 0.1), (8, 0.4), (12, 0.2), (8, 0.3)]:
        checkpoint.record_validation(workdir, step, value, metric="m", is_higher_better=True)
    assert checkpoint.read_validations(workdir).values == {4: 0.1, 8: 0.3}


@pytest.mark.parametrize(
    ("is_higher_better", "counts"), [(True, [0, 0, 0, 1, 2, 0]), (False, [0, 0, 1, 2, 3, 4])], ids=["ndcg", "mse"]
)
def test_validations_since_the_best_are_counted_up_to_a_step(is_higher_better: bool, counts: list[int]) -> None:
    """An equal metric is not better; validations after the step, left by a killed run, are ignored."""
    values = {2: 0.1, 4: 0.3, 6: 0.3, 8: 0.2, 10: 0.4}
    validations = checkpoint.Validations(metric="", is_higher_better=is_higher_better, values=values)
    # the largest of 0.1 0.3 0.3 0.2 0.4 so far is that of steps 2, 4, 4, 4, 10; the smallest is always that of step 2
    assert [validations.since_best(step) for step in (0, 2, 4, 6, 8, 10)] == counts


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    save(str(tmp_path), 4)
    replicas = start_replicas(1, None)
    table = ShardedTable(rows=12, dim=3, replicas=replicas, optimizer=row_optimizer(AdamConfig()))
    with pytest.raises(ValueError, match="train into another --workdir"):
        checkpoint.restore(str(tmp_path), TrainState({"visitor": table}, [], []), 4)
