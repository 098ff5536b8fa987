"""Tests that a directory has one owner, who finds out when it is lost."""

import errno
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from common import storage
from common.storage import owner_record, ownership, stores
from tests.common.storage.owners import (
    BEAT,
    OWN,
    STALE,
    first_line,
    in_thread,
    other_owner,
    raise_error,
    running,
    wait_until,
)


def test_a_second_process_is_refused_at_once_and_the_first_is_unharmed(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with running(OWN, str(workdir)) as first:
        assert first_line(first) == "owns"
        expected = (
            rf"run is in use by process {first.pid} on host .* \(owner since \d{{4}}-.* UTC\), last heartbeat "
            r"\d s ago; wait until that process ends, end it, or choose another directory"
        )
        started = time.monotonic()
        with pytest.raises(storage.InUseError, match=expected), storage.own_directory(str(workdir)):
            pass
        assert time.monotonic() - started < 1
        assert first.communicate("\n")[0] == "still owns\n"
    assert os.listdir(tmp_path) == [], "its own new directory is removed while it is empty"
    with storage.own_directory(str(workdir)), storage.own_directory(f"{tmp_path}/./run"):  # a thread keeps what it owns
        assert os.listdir(workdir) == ["_owner.json"]


def test_another_thread_of_the_process_is_refused(tmp_path: Path) -> None:
    expected = rf"process {os.getpid()} on host"
    with storage.own_directory(str(tmp_path)), pytest.raises(storage.InUseError, match=expected):
        in_thread(lambda: storage.own_directory(str(tmp_path)).__enter__())


@pytest.mark.usefixtures("fast")
def test_a_suspended_owner_finds_its_successor_and_stops(tmp_path: Path) -> None:
    with running(OWN, str(tmp_path)) as first:
        assert first_line(first) == "owns"
        first.send_signal(signal.SIGSTOP)
        time.sleep(STALE)
        with storage.own_directory(str(tmp_path)):
            first.send_signal(signal.SIGCONT)
            out, errors = first.communicate("\n")
            assert (out, first.returncode) == ("", 1)
            assert f"was taken over by process {os.getpid()} on host" in errors
            assert "this process stops and writes nothing more" in errors
            storage.check_ownership(str(tmp_path))


@pytest.mark.usefixtures("fast")
def test_a_heartbeat_changes_the_time_of_a_record_and_never_its_content(tmp_path: Path) -> None:
    record = tmp_path / storage.OWNER
    with storage.own_directory(str(tmp_path)):
        content = record.read_bytes()
        os.utime(record, (0, 0))
        wait_until(lambda: record.stat().st_mtime > time.time() - 60)
        assert record.read_bytes() == content
        assert storage.list_files(str(tmp_path)) == [], "the record is no part of the directory's content"
        record.write_bytes(successor := other_owner())
        owner_record.write_beat(str(record))  # of an owner that was suspended just before it
        assert record.read_bytes() == successor


@pytest.mark.usefixtures("fast")
def test_the_heartbeat_goes_on_after_any_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors, beat = [RuntimeError("cannot schedule new futures"), ValueError("bad"), KeyError("x")], ownership.write_beat
    monkeypatch.setattr(ownership, "write_beat", lambda record: raise_error(errors.pop()) if errors else beat(record))
    with storage.own_directory(str(tmp_path)):
        os.utime(tmp_path / storage.OWNER, (0, 0))
        wait_until(lambda: (tmp_path / storage.OWNER).stat().st_mtime > time.time() - 60)
    assert (errors, len(caplog.messages)) == ([], 1)


@pytest.mark.usefixtures("fast")
def test_a_removed_record_stops_its_owner_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / storage.OWNER).write_text('{"token": ')
    with storage.own_directory(str(tmp_path)):
        assert json.loads((tmp_path / storage.OWNER).read_text())["process"]["id"] == os.getpid()
        (tmp_path / storage.OWNER).unlink()
        with pytest.raises(storage.OwnershipLostError, match=r"_owner.json was removed, so .* may have another owner"):
            storage.check_ownership(str(tmp_path))
        with pytest.raises(storage.OwnershipLostError):
            storage.stop_if_lost(str(tmp_path / "parts"))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("blip", [None, b'{"token": "'], ids=["missing", "truncated"])
def test_a_record_that_is_missing_or_truncated_for_a_moment_costs_nothing(
    blip: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, blips = owner_record._read, list[bytes | None]()
    monkeypatch.setattr(owner_record, "_read", lambda *arguments: blips.pop() if blips else read(*arguments))
    monkeypatch.setattr(ownership._Ownership, "_beat_until_released", lambda _: None)  # it would read, too
    with storage.own_directory(str(tmp_path)):
        blips += [blip] * 3
        storage.check_ownership(str(tmp_path))
        assert blips == []


@pytest.mark.usefixtures("fast")
def test_a_directory_that_is_away_for_a_moment_is_kept_also_in_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with storage.own_directory("run"):
        monkeypatch.chdir(tmp_path / "elsewhere")
        (tmp_path / "run").rename(tmp_path / "away")
        back = threading.Timer(BEAT / 4, lambda: (tmp_path / "away").rename(tmp_path / "run"))
        back.start()
        storage.check_ownership(str(tmp_path / "run"))
        back.join()
        storage.check_ownership(str(tmp_path / "run" / "parts"))


def test_a_start_on_a_full_disk_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "link", lambda *_: raise_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        full.setattr(os, "replace", lambda *_: raise_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        with pytest.raises(OSError, match=r"_owner\.json"), storage.own_directory(str(tmp_path / "run")):
            pass
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_links_gets_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_: raise_error(PermissionError()))
    store, path = stores.open_store(str(tmp_path)), str(tmp_path / "record")
    store.create(path, b"first")
    store.create(path, b"second")
    assert [(tmp_path / name).read_bytes() for name in os.listdir(tmp_path)] == [b"first"]


def test_a_failure_after_a_takeover_ends_as_a_lost_directory(tmp_path: Path) -> None:
    output, record = str(tmp_path / "dataset"), tmp_path / ".dataset.owner.json"
    with (
        pytest.raises(storage.OwnershipLostError, match="was taken over by process 7") as raised,
        storage.publish_directory(output) as staging,
    ):
        record.write_bytes(other_owner())
        shutil.rmtree(staging)  # the successor removes unfinished files
        Path(staging, "a").write_bytes(b"")
    assert isinstance(raised.value.__context__, FileNotFoundError)
    assert os.listdir(tmp_path) == [record.name]


def test_two_publishers_of_one_output_do_not_meet(tmp_path: Path) -> None:
    output = str(tmp_path / "dataset")
    abandoned = tmp_path / ".dataset.partial-killed"
    abandoned.mkdir()
    with storage.own_output(output), pytest.raises(storage.InUseError, match="dataset is in use by"):
        in_thread(lambda: storage.publish_directory(output).__enter__())
    assert abandoned.exists(), "it could be the other's"
    with storage.publish_directory(output) as staging:
        storage.write_bytes(f"{staging}/a", b"")
    assert os.listdir(tmp_path) == ["dataset"]


def test_a_heartbeat_needs_no_space_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_on_full_disk(path: str, mode: str) -> object:
        if mode == "r+b":
            raise OSError(errno.ENOSPC, "full")
        return open(path, mode)

    record = tmp_path / storage.OWNER
    record.write_bytes(b"{}")
    os.utime(record, (0, 0))
    monkeypatch.setattr(owner_record, "open", open_on_full_disk, raising=False)
    owner_record.write_beat(str(record))
    assert record.stat().st_mtime > time.time() - 60
    monkeypatch.setattr(os, "utime", lambda _: None)  # some network file systems ignore it
    with pytest.raises(OSError, match="full"):
        owner_record.write_beat(str(record))
