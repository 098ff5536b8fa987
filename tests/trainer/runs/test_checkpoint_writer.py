import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from common import storage
from tests.trainer.runs.test_checkpoint import contents, make_parts
from trainer.distributed.replicas import start_replicas
from trainer.runs import checkpoint, checkpoint_writer
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.runs.layout import RunLayout


def make_writer(workdir: Path, *, fill: int) -> CheckpointWriter:
    replicas = start_replicas(2, None)
    return CheckpointWriter(str(workdir), make_parts(replicas, fill=fill), replicas, steps_per_epoch=4)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What is written waits for it."""
    opened, write = threading.Event(), checkpoint_writer._write_file

    def wait_and_write(path, pieces, is_given_up):
        assert opened.wait(timeout=30)
        return write(path, pieces, is_given_up)

    monkeypatch.setattr(checkpoint_writer, "_write_file", wait_and_write)
    return opened


def test_what_changes_while_a_checkpoint_is_written_is_not_in_it(tmp_path: Path, gate: threading.Event) -> None:
    replicas = start_replicas(2, None)
    parts = make_parts(replicas, fill=3)
    before = contents(parts)
    writer = CheckpointWriter(str(tmp_path), parts, replicas, steps_per_epoch=4)
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


def test_polling_publishes_once_all_is_written(tmp_path: Path, gate: threading.Event) -> None:
    writer = make_writer(tmp_path, fill=0)
    writer.begin(4)
    gate.set()
    assert writer._pending is not None
    writer._pending.written.result(timeout=30)
    assert checkpoint.last_step(str(tmp_path)) is None
    writer.poll()
    assert checkpoint.last_step(str(tmp_path)) == 4
    state = json.loads((Path(RunLayout(str(tmp_path)).checkpoint(4)) / "state.json").read_text())
    assert not [name for name in state["files"] if "checksums" in name]


def test_an_urgent_checkpoint_does_not_wait_for_the_one_before(
    tmp_path: Path, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(tmp_path, fill=0)
    writer.begin(4)
    threading.Timer(0.2, gate.set).start()
    writer.begin(5, is_urgent=True)
    assert writer.finish()
    assert checkpoint.last_step(str(tmp_path)) == 5
    assert not Path(RunLayout(str(tmp_path)).checkpoint(4)).exists()
    assert not Path(RunLayout(str(tmp_path)).checkpoint(4) + ".partial").exists()
    assert "could not be written" not in caplog.text


def test_a_full_disk_costs_the_checkpoint_and_neither_the_earlier_ones_nor_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = make_writer(tmp_path, fill=0)
    writer.begin(4)
    assert writer.finish()
    with monkeypatch.context() as full, caplog.at_level(logging.ERROR):
        write = checkpoint_writer._write_file
        full.setattr(checkpoint_writer, "_write_file", lambda _, *given: write("/dev/full", *given))
        writer.begin(8)
        assert not writer.finish()
    assert "checkpoint of step 8 could not be written: [Errno 28] No space left on device" in caplog.text
    # 16 rows of 3 float32 with two moments of Adam: 576 bytes
    assert "It needs 0.0 MiB, with " in caplog.text
    assert checkpoint.last_step(str(tmp_path)) == 4
    assert not Path(RunLayout(str(tmp_path)).checkpoint(8) + ".partial").exists()
    writer.begin(12)
    assert writer.finish()
    assert checkpoint.last_step(str(tmp_path)) == 12


def test_a_full_disk_at_the_moment_of_publishing_is_no_checkpoint_either(
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


def test_an_error_that_is_not_the_disks_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_):
        raise RuntimeError("a mistake of the program")

    writer = make_writer(tmp_path, fill=0)
    monkeypatch.setattr(checkpoint_writer, "_write_file", fail)
    writer.begin(4)
    with pytest.raises(RuntimeError, match="a mistake of the program"):
        writer.finish()


def test_what_waits_for_the_checkpoint_before_is_no_hang(tmp_path: Path, gate: threading.Event) -> None:
    """A worker that waits for a slow store tells its watchdog that all are there."""
    writer, looks = make_writer(tmp_path, fill=0), []
    writer.begin(4)
    writer.begin(5, lambda: (looks.append("waiting"), gate.set()))
    writer.begin(6, lambda: looks.append("giving up"), is_urgent=True)
    assert writer.finish(lambda: looks.append("finishing"))
    assert set(looks) >= {"waiting"}
    assert checkpoint.last_step(str(tmp_path)) == 6


def test_an_urgent_checkpoint_keeps_the_one_before_that_is_whole(tmp_path: Path, gate: threading.Event) -> None:
    writer = make_writer(tmp_path, fill=0)
    writer.begin(4)
    gate.set()
    assert writer._pending is not None
    writer._pending.written.result(timeout=30)  # written, and not yet published
    gate.clear()
    writer.begin(5, is_urgent=True)
    assert checkpoint.last_step(str(tmp_path)) == 4
    gate.set()
    assert writer.finish()
    assert checkpoint.last_step(str(tmp_path)) == 5
