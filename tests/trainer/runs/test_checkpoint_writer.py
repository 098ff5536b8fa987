import json
import logging
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common import storage
from common.sealed_json import encode_sealed
from common.storage import owner_record
from tests.trainer.runs.test_checkpoint import contents, make_parts
from trainer.distributed import embeddings
from trainer.distributed.replicas import Replicas, start_replicas
from trainer.runs import checkpoint, checkpoint_files, checkpoint_writer
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.runs.layout import RunLayout

HANG_SECONDS = 300
"""Time limit for waits that take milliseconds on an idle machine."""


def make_writer(workdir: Path | str, *, fill: int) -> CheckpointWriter:
    replicas = start_replicas(2, None)
    return CheckpointWriter(str(workdir), make_parts(replicas, fill=fill), replicas, run="r", steps_per_epoch=4)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Returns an event. Writers of checkpoints wait until it is set."""
    opened, write = threading.Event(), checkpoint_files._write_file

    def wait_and_write(path, contents):
        assert opened.wait(timeout=HANG_SECONDS)
        return write(path, contents)

    monkeypatch.setattr(checkpoint_files, "_write_file", wait_and_write)
    return opened


def test_updates_during_the_writing_of_a_checkpoint_are_not_in_it(tmp_path: Path, gate: threading.Event) -> None:
    replicas = start_replicas(2, None)
    parts = make_parts(replicas, fill=3)
    before = contents(parts)
    writer = CheckpointWriter(str(tmp_path), parts, replicas, run="r", steps_per_epoch=4)
    writer.begin(6)
    for shards in parts.arrays().values():
        shards.assign(0, np.zeros((shards.rows, 3), np.float32))
    for variable in parts.dense:
        variable.assign(np.zeros(variable.shape))
    writer.poll()
    assert checkpoint.last_step(str(tmp_path)) is None  # still being written
    gate.set()
    assert writer.finish()
    checkpoint.restore(str(tmp_path), parts, 6)
    for name, found in contents(parts).items():
        np.testing.assert_array_equal(found, before[name], err_msg=name)


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a single chunk, of one row, wait for the writing thread."""
    monkeypatch.setattr(checkpoint_files, "_MIN_WAITING_BYTES", 1)
    monkeypatch.setattr(checkpoint_files, "_WAITING_SHARE", 0.0)
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 1)


@pytest.mark.usefixtures("tight")
def test_training_waits_for_the_rows_that_do_not_fit_into_memory(tmp_path: Path, gate: threading.Event) -> None:
    replicas, pings = start_replicas(2, None), []
    parts = make_parts(replicas, fill=3)
    before = contents(parts)
    writer = CheckpointWriter(str(tmp_path), parts, replicas, run="r", steps_per_epoch=4)
    writer.begin(6, lambda: (pings.append("waiting"), gate.set()))
    assert pings  # the watchdog is pinged during the wait
    for shards in parts.arrays().values():
        shards.assign(0, np.zeros((shards.rows, 3), np.float32))
    assert writer.finish()
    checkpoint.restore(str(tmp_path), parts, 6)
    for name, found in contents(parts).items():
        np.testing.assert_array_equal(found, before[name], err_msg=name)


@pytest.mark.usefixtures("tight")
def test_the_time_to_the_next_checkpoint_starts_when_training_continues(
    tmp_path: Path, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a pause of 10 s counted, a run with a checkpoint every 10 s would do nothing else."""
    clock = [0.0]
    monkeypatch.setattr(checkpoint_writer, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    writer = make_writer(tmp_path, fill=0)

    def wait() -> None:
        clock[0] = 10.0
        gate.set()

    writer.begin(4, wait)
    assert not writer.is_due(10)
    clock[0] = 20.0
    assert writer.is_due(10)
    assert not writer.is_due(None)
    assert writer.finish()


def test_the_files_are_the_same_however_few_rows_fit_into_memory(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for name in ("at once", "row by row"):
        if name == "row by row":
            request.getfixturevalue("tight")
        writer = make_writer(tmp_path / name, fill=3)
        writer.begin(4)
        assert writer.finish()
    folders = [Path(RunLayout(str(tmp_path / name)).checkpoint(4)) for name in ("at once", "row by row")]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    # two tables with two moments, of two replicas each; dense.npz, state.json
    assert len(files[0]) == 2 * 3 * 2 + 2
    assert files[0] == files[1]


@pytest.mark.usefixtures("tight")
def test_a_thread_that_fails_does_not_block_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, write = make_writer(tmp_path, fill=0), checkpoint_files._write_file
    monkeypatch.setattr(checkpoint_files, "_write_file", lambda _, contents: write("/dev/full", contents))
    writer.begin(4)
    assert not writer.finish()
    assert checkpoint.last_step(str(tmp_path)) is None


@pytest.mark.usefixtures("tight")
def test_if_training_fails_during_the_wait_the_thread_ends(tmp_path: Path, gate: threading.Event) -> None:
    writer = make_writer(tmp_path, fill=0)

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.begin(4, fail)
    gate.set()
    assert writer._pending is not None
    assert isinstance(writer._pending.written.exception(timeout=HANG_SECONDS), OSError)


class Worker(Replicas):
    """One of two workers in threads of this process, each with one replica, that exchange sums through `met`."""

    met: tuple[threading.Barrier, dict[int, np.ndarray]]

    def sum_over_workers(self, value: np.ndarray) -> np.ndarray:
        barrier, values = self.met
        values[self.worker] = value
        barrier.wait(HANG_SECONDS)
        total = values[0] + values[1]
        barrier.wait(HANG_SECONDS)
        return total


def start_two_workers() -> list[Replicas]:
    met = threading.Barrier(2), {}
    both = start_replicas(2, None)
    workers = [Worker(both.strategy, 2, both.devices[number : number + 1], number, 2) for number in (0, 1)]
    for worker in workers:
        object.__setattr__(worker, "met", met)
    return workers


@pytest.mark.usefixtures("tight")
def test_a_worker_that_has_read_its_rows_waits_for_the_others_and_pings_its_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would hang in the next step until its watchdog ends the run."""
    opened, write = threading.Event(), checkpoint_files._write_file

    def wait_as_second_worker(path: str, chunks: Iterable[memoryview]) -> str:
        assert "00000-of-00002" in path or path.endswith(checkpoint.DENSE) or opened.wait(HANG_SECONDS)
        return write(path, chunks)

    monkeypatch.setattr(checkpoint_files, "_write_file", wait_as_second_worker)
    workers = start_two_workers()
    states = [make_parts(worker, fill=3) for worker in workers]
    writers = [
        CheckpointWriter(str(tmp_path), state, worker, run="r", steps_per_epoch=4)
        for state, worker in zip(states, workers, strict=True)
    ]
    pings = [0, 0]

    def save(number: int) -> bool:
        def ping() -> None:
            pings[number] += 1
            if pings[0] == 3:  # the first worker has written its files, or waits for the second one
                opened.set()

        writers[number].begin(4, ping)
        return writers[number].finish(ping)

    with ThreadPoolExecutor(2) as executor:
        assert list(executor.map(save, (0, 1), timeout=HANG_SECONDS)) == [True, True]
    assert min(pings) >= 3
    restored = make_parts(start_replicas(2, None))
    checkpoint.restore(str(tmp_path), restored, 4)
    expected = contents(make_parts(start_replicas(2, None), fill=3))
    for name, found in contents(restored).items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


def test_polling_publishes_once_all_files_are_written(tmp_path: Path, gate: threading.Event) -> None:
    writer = make_writer(tmp_path, fill=0)
    writer.begin(4)
    gate.set()
    assert writer._pending is not None
    writer._pending.written.result(timeout=HANG_SECONDS)
    assert checkpoint.last_step(str(tmp_path)) is None
    writer.poll()
    assert checkpoint.last_step(str(tmp_path)) == 4
    state = json.loads((Path(RunLayout(str(tmp_path)).checkpoint(4)) / "state.json").read_text())
    assert not [name for name in state["files"] if "checksums" in name]


def test_on_a_full_disk_only_the_new_checkpoint_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(tmp_path, fill=0)
    writer.begin(4)
    assert writer.finish()
    with monkeypatch.context() as full, caplog.at_level(logging.ERROR):
        write = checkpoint_files._write_file
        full.setattr(checkpoint_files, "_write_file", lambda _, *given: write("/dev/full", *given))
        writer.begin(8)
        assert not writer.finish()
    assert "checkpoint of step 8 could not be written: [Errno 28] No space left on device" in caplog.text
    # 16 rows of 3 float32 with two moments of Adam: 576 bytes
    assert "The checkpoint needs 0.0 MiB, and " in caplog.text
    assert checkpoint.last_step(str(tmp_path)) == 4
    assert not Path(RunLayout(str(tmp_path)).checkpoint(8) + ".partial").exists()
    writer.begin(12)
    assert writer.finish()
    assert checkpoint.last_step(str(tmp_path)) == 12


def test_on_a_disk_that_is_full_when_publishing_only_the_new_checkpoint_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = make_writer(tmp_path, fill=0)
    write_bytes = storage.write_bytes

    def refuse_state(uri, content):
        if uri.endswith(checkpoint.STATE):
            raise OSError(28, "No space left on device")
        write_bytes(uri, content)

    monkeypatch.setattr(checkpoint_writer.storage, "write_bytes", refuse_state)
    writer.begin(4)
    assert not writer.finish()
    assert checkpoint.last_step(str(tmp_path)) is None


@pytest.fixture
def in_store(tmp_path: Path) -> Iterator[str]:
    """A workdir in a store, which this process owns."""
    workdir = f"memory://checkpoints/{tmp_path.name}"
    with storage.own_directory(workdir):
        yield workdir


def take_over(workdir: str) -> None:
    """Acts as another process that becomes the owner of a workdir and starts a checkpoint."""
    record = storage.read_bytes(f"{workdir}/{storage.OWNER}").replace(b'"token": "', b'"token": "other')
    storage.write_bytes(f"{workdir}/{storage.OWNER}", record)
    storage.write_bytes(f"{RunLayout(workdir).checkpoint(4)}/theirs", b"")


def test_an_upload_of_a_former_owner_stops_before_the_checkpoint_of_its_successor(
    in_store: str, gate: threading.Event
) -> None:
    writer = make_writer(in_store, fill=0)
    writer.begin(4)
    take_over(in_store)
    gate.set()
    with pytest.raises(storage.OwnershipLostError, match="was taken over by process"):
        writer.finish()
    with pytest.raises(storage.OwnershipLostError):
        writer.begin(4)
    assert storage.list_files(RunLayout(in_store).checkpoint(4)) == ["theirs"]


def test_a_former_owner_keeps_a_published_checkpoint_of_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode_and_lose(values: dict[str, object]) -> bytes:
        take_over(str(tmp_path))
        return encode_sealed(values)

    monkeypatch.setattr(checkpoint_writer, "encode_sealed", encode_and_lose)
    with pytest.raises(storage.OwnershipLostError), storage.own_directory(str(tmp_path)):
        writer = make_writer(tmp_path, fill=0)
        writer.begin(4)
        writer.finish()
    assert storage.list_files(RunLayout(str(tmp_path)).checkpoint(4)) == ["theirs"]


def test_a_checkpoint_begins_although_its_owner_cannot_be_read(in_store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise TimeoutError("the store does not answer")

    writer = make_writer(in_store, fill=0)
    with monkeypatch.context() as outage:
        outage.setattr(owner_record, "_read", fail)
        writer.begin(4)
        assert writer._pending is not None
        writer._pending.written.result(timeout=HANG_SECONDS)
    assert writer.finish()
    assert checkpoint.last_step(in_store) == 4


def test_an_error_other_than_of_the_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_):
        raise RuntimeError("a mistake of the program")

    writer = make_writer(tmp_path, fill=0)
    monkeypatch.setattr(checkpoint_files, "_write_file", fail)
    writer.begin(4)
    with pytest.raises(RuntimeError, match="a mistake of the program"):
        writer.finish()


def test_waiting_for_a_pending_checkpoint_reports_progress(tmp_path: Path, gate: threading.Event) -> None:
    """A worker that waits for a slow store pings its watchdog."""
    writer, pings = make_writer(tmp_path, fill=0), []
    writer.begin(4)
    writer.begin(5, lambda: (pings.append("waiting"), gate.set()))
    writer.begin(6)
    assert writer.finish(lambda: pings.append("finishing"))
    assert set(pings) >= {"waiting"}
    assert checkpoint.last_step(str(tmp_path)) == 6
