"""Tests that a directory passes from an owner that has ended to one other process."""

import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from common import storage
from common.storage import owner_record, takeover
from common.storage.processes import current_process
from tests.common.storage.owners import (
    BEAT,
    OWN,
    STALE,
    Clock,
    ended_process,
    first_line,
    names_in,
    other_owner,
    running,
    wait_until,
)


def test_the_directory_of_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    with running(OWN, str(tmp_path)) as first:
        assert first_line(first) == "owns"
        first.kill()  # it stays as a zombie until the context waits for it
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        started = time.monotonic()
        with storage.own_directory(str(tmp_path)):
            assert time.monotonic() - started < 1


@pytest.mark.usefixtures("fast")
def test_a_living_owner_in_another_pid_namespace_is_kept_and_a_killed_one_replaced(
    tmp_path: Path, namespace: list[str]
) -> None:
    with running(OWN, str(tmp_path), before=namespace) as first:
        assert first_line(first) == "owns"
        with (
            pytest.raises(storage.InUseError, match=r"process \d+ on host"),
            storage.own_directory(str(tmp_path)),
        ):
            pass
        first.kill()
        started = time.monotonic()
        with storage.own_directory(str(tmp_path)):
            assert time.monotonic() - started > STALE / 2, "only the heartbeat shows that it has ended"


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("beat", [b"", b"1.5", b"9999999999.5"])
def test_a_silent_owner_of_another_machine_is_replaced_whatever_its_clock(beat: bytes) -> None:
    bucket = f"memory://silent{beat.decode()}"
    storage.write_bytes(f"{bucket}/{storage.OWNER}", other_owner())
    storage.write_bytes(f"{bucket}/{storage.OWNER}.beat", beat)
    with storage.own_directory(bucket):
        assert json.loads(storage.read_bytes(f"{bucket}/{storage.OWNER}"))["process"]["id"] == os.getpid()
    assert names_in(bucket) == []


@pytest.mark.usefixtures("fast")
def test_a_beating_owner_of_another_machine_is_kept_even_if_its_clock_is_slow() -> None:
    record = f"memory://beating/{storage.OWNER}"
    storage.write_bytes(record, other_owner())
    beat = threading.Timer(BEAT, lambda: storage.write_bytes(f"{record}.beat", b"1.5"))
    beat.start()
    expected = "process 7 on host elsewhere, pod train-0-x7k2p .owner since 2026-11-30 01:02:03 UTC., last heartbeat"
    with pytest.raises(storage.InUseError, match=expected), storage.own_directory("memory://beating"):
        pass
    beat.join()
    assert json.loads(storage.read_bytes(record))["token"] == "other"


def test_silence_counts_only_while_the_storage_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    record, clock, read = f"memory://slow/{storage.OWNER}", Clock(), takeover.read_owner
    storage.write_bytes(record, other_owner())

    def read_slowly(*arguments: object) -> object:
        if clock.now == 1e9 + 3:  # the third look takes five minutes, in which the owner could not beat either
            clock.now += 300
        if clock.now > 1e9 + 340:
            storage.write_bytes(f"{record}.beat", b"1.5")
        return read(*arguments)

    monkeypatch.setattr(takeover, "time", clock)
    monkeypatch.setattr(takeover, "read_owner", read_slowly)
    with pytest.raises(storage.InUseError, match="process 7 on host elsewhere"):
        storage.own_directory("memory://slow").__enter__()


def test_of_many_that_take_over_at_once_one_wins(tmp_path: Path) -> None:
    start, won, results = threading.Barrier(8), threading.Event(), []

    def take_over() -> None:
        start.wait()
        try:
            with storage.own_directory(str(tmp_path)):
                results.append("won")
                won.wait()
                storage.check_ownership(str(tmp_path))
        except storage.InUseError:
            results.append("refused")

    (tmp_path / storage.OWNER).write_bytes(other_owner(**ended_process()))
    threads = [threading.Thread(target=take_over) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(results) == 8)
    won.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused"] * 7 + ["won"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", ["local", "memory://late"])
def test_a_late_candidate_does_not_remove_the_record_of_the_winner(tmp_path: Path, folder: str) -> None:
    record = f"{folder if '://' in folder else tmp_path}/{storage.OWNER}"
    storage.write_bytes(record, other_owner("next"))
    owner_record.remove_record(record, "other")
    assert json.loads(storage.read_bytes(record))["token"] == "next"
    earlier = asdict(current_process()) | {"instance": "earlier"}  # before its container was restarted
    storage.write_bytes(f"{record}.next", json.dumps(earlier).encode())
    owner_record.remove_record(record, "next")
    assert json.loads(storage.read_bytes(record))["token"] == "next"


def test_the_claim_of_a_killed_candidate_is_removed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = str(tmp_path / storage.OWNER)
    storage.write_bytes(f"{record}.other", b"killed")
    clock = Clock()
    monkeypatch.setattr(owner_record, "time", clock)
    owner_record.await_removal(record, "other")
    assert os.listdir(tmp_path) == []
    assert clock.now - 1e9 > owner_record.STALE_SECONDS


def test_the_claim_of_an_ended_process_is_removed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, claim = str(tmp_path / storage.OWNER), ended_process()
    storage.write_bytes(f"{record}.other", json.dumps(claim).encode())
    monkeypatch.setattr(owner_record, "time", clock := Clock())
    owner_record.await_removal(record, "other")
    assert (os.listdir(tmp_path), clock.now) == ([], 1e9)


@pytest.mark.parametrize(("instance", "waits"), [("killed", False), ("killed before", False), ("another", True)])
def test_a_nested_directory_of_a_replaced_owner_is_taken_over_without_another_wait(
    instance: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "parts" / "walk"
    part.mkdir(parents=True)
    (tmp_path / storage.OWNER).write_bytes(other_owner("outer", ["killed before"], instance="killed"))
    (part / storage.OWNER).write_bytes(other_owner("inner", instance=instance))
    monkeypatch.setattr(takeover, "time", clock := Clock())
    with storage.own_directory(str(tmp_path)):
        assert json.loads((tmp_path / storage.OWNER).read_bytes())["replaced"] == ["killed before", "killed"]
        waited = clock.now
        assert waited >= 1e9 + owner_record.STALE_SECONDS
        with storage.own_directory(str(part)):
            assert (clock.now > waited) == waits
