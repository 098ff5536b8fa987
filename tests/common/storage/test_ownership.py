"""Tests that a directory has one owner: with two processes, two PID namespaces and a suspended owner."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import fsspec
import pytest

from common import storage
from common.storage import ownership, processes, stores
from common.storage.processes import current_process, is_running
from common.storage.stores import FsspecStore

ROOT = Path(__file__).parents[3]
BEAT, STALE = 0.1, 0.8
OWN = f"""
import sys, time
from common import storage
from common.storage import ownership
ownership.BEAT_SECONDS, ownership.STALE_SECONDS = {BEAT}, {STALE}
with storage.own_directory(sys.argv[1]):
    print("owns", flush=True)
    sys.stdin.readline()
    storage.try_to_check_ownership(sys.argv[1])
    print("still owns", flush=True)
"""
SCRATCH = """
import sys
from common import storage
print(storage.make_scratch("cache"), flush=True)
sys.stdin.readline()
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.getuid():
    NAMESPACE[1:1] = ["--user", "--map-root-user"]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(ownership, "STALE_SECONDS", STALE)


@pytest.fixture
def namespace() -> list[str]:
    """Returns the first words of a command that runs in a new PID namespace."""
    if not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow new PID namespaces (`unshare --pid` fails)")
    return NAMESPACE


@contextmanager
def running(code: str, *arguments: str, before: list[str] | None = None, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Starts a program that prints a line when it is ready and waits for a line."""
    process = subprocess.Popen(
        [*(before or []), sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def in_thread(work: Callable[[], object]) -> None:
    """Calls `work` in another thread and raises its error here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (raised below)
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def other_owner(token: str = "other", **process: object) -> bytes:
    """Returns the owner record of a process on another machine; `process` replaces its values."""
    there = {
        "host": "elsewhere",
        "pod": "train-0-x7k2p",
        "id": 7,
        "boot": "other",
        "namespace": "pid:[1]",
        "start": "1",
    }
    return json.dumps({"token": token, "process": there | process, "since": "2026-11-30 01:02:03 UTC"}).encode()


def names_in(folder: str) -> list[str]:
    """Returns the names of all files of a directory in the in-memory store, even of those that `list_files` hides."""
    return sorted(Path(name).name for name in fsspec.filesystem("memory").find(folder))


class Clock:
    """Replaces `time` in the module; sleeping takes no time."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_second_process_is_refused_at_once_and_the_first_is_unharmed(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with running(OWN, str(workdir)) as first:
        assert first_line(first) == "owns"
        expected = (
            rf"run is in use by process {first.pid} on host .*, since \d{{4}}-.* UTC, last heartbeat \d s ago; "
            "wait until it ends, end it, or choose another directory"
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


def test_the_directory_of_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    with running(OWN, str(tmp_path)) as first:
        assert first_line(first) == "owns"
        first.kill()  # it stays as a zombie until the context waits for it
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
        started = time.monotonic()
        with storage.own_directory(str(tmp_path)):
            assert time.monotonic() - started < 1


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


def test_the_scratch_folder_of_another_pid_namespace_is_kept(tmp_path: Path, namespace: list[str]) -> None:
    temporary = {"TMPDIR": str(tmp_path)}
    with running(SCRATCH, before=namespace, **temporary) as first, running(SCRATCH, **temporary) as killed:
        mine, left = Path(first_line(first)), Path(first_line(killed))
        killed.kill()
        killed.wait()
        with running(SCRATCH, **temporary) as second:
            assert Path(first_line(second)).is_dir()
            assert (mine.is_dir(), left.exists()) == (True, False)
            second.communicate("\n")
        first.communicate("\n")
    assert os.listdir(tmp_path) == [], "a process that ends removes its folders"


def test_a_scratch_folder_is_removed_at_its_end_even_after_an_error() -> None:
    with pytest.raises(ValueError, match="stopped"), storage.scratch_folder("export") as folder:
        Path(folder, "variables").write_bytes(b"1")
        raise ValueError("stopped")
    assert not Path(folder).exists()


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
    expected = "process 7 on host elsewhere, pod train-0-x7k2p, since 2026-11-30 01:02:03 UTC, last heartbeat"
    with pytest.raises(storage.InUseError, match=expected), storage.own_directory("memory://beating"):
        pass
    beat.join()
    assert json.loads(storage.read_bytes(record))["token"] == "other"


def test_silence_counts_only_while_the_storage_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    record, clock, read = f"memory://slow/{storage.OWNER}", Clock(), ownership._read_owner
    storage.write_bytes(record, other_owner())

    def read_slowly(*arguments: object) -> object:
        if clock.now == 1e9 + 3:  # the third look takes five minutes, in which the owner could not beat either
            clock.now += 300
        if clock.now > 1e9 + 340:
            storage.write_bytes(f"{record}.beat", b"1.5")
        return read(*arguments)

    monkeypatch.setattr(ownership, "time", clock)
    monkeypatch.setattr(ownership, "_read_owner", read_slowly)
    with pytest.raises(storage.InUseError, match="process 7 on host elsewhere"):
        storage.own_directory("memory://slow").__enter__()


@pytest.mark.usefixtures("fast")
def test_an_owner_in_a_store_loses_it_to_a_successor_and_leaves_the_record_of_the_successor() -> None:
    record = f"memory://lost/{storage.OWNER}"
    with (
        pytest.raises(storage.OwnershipLostError, match="taken over by process 7 on host elsewhere"),
        storage.own_directory("memory://lost"),
    ):
        storage.check_ownership("memory://lost/parts/walk")
        storage.write_bytes(record, other_owner())
        storage.check_ownership("memory://lost-and-found")  # another directory
        storage.try_to_check_ownership("memory://lost/parts/walk")
    assert json.loads(storage.read_bytes(record))["token"] == "other"


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
        ownership._beat(str(record))  # of an owner that was suspended just before it
        assert record.read_bytes() == successor


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_two_that_create_a_record_without_conditional_writes_one_owns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    record = f"memory://race/{storage.OWNER}"

    def write_with_another(self: FsspecStore, uri: str, content: bytes) -> None:
        self.write(uri, content)
        self.write(uri, other_owner())

    monkeypatch.setattr(FsspecStore, "create", write_with_another)
    monkeypatch.setattr(ownership, "_has_ended", lambda found, *_: pytest.fail(f"refused by {found.process}"))
    with pytest.raises(pytest.fail.Exception, match="refused by process 7 on host elsewhere"):
        storage.own_directory("memory://race").__enter__()
    assert json.loads(storage.read_bytes(record))["token"] == "other"


def test_of_many_that_take_over_at_once_one_wins(tmp_path: Path) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
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

    (tmp_path / storage.OWNER).write_bytes(other_owner(**asdict(current_process()) | {"id": child.pid}))
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
    ownership._remove(record, "other")
    assert json.loads(storage.read_bytes(record))["token"] == "next"
    storage.write_bytes(f"{record}.next", b"claimed by another candidate")
    ownership._remove(record, "next")
    assert json.loads(storage.read_bytes(record))["token"] == "next"


def test_the_claim_of_a_killed_candidate_is_removed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = str(tmp_path / storage.OWNER)
    storage.write_bytes(f"{record}.other", b"killed")
    clock = Clock()
    monkeypatch.setattr(ownership, "time", clock)
    ownership._await_removal(record, "other")
    assert os.listdir(tmp_path) == []
    assert clock.now - 1e9 > ownership.STALE_SECONDS


def test_the_claim_of_an_ended_process_is_removed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    record, claim = str(tmp_path / storage.OWNER), asdict(current_process()) | {"id": child.pid}
    storage.write_bytes(f"{record}.other", json.dumps(claim).encode())
    monkeypatch.setattr(ownership, "time", clock := Clock())
    ownership._await_removal(record, "other")
    assert (os.listdir(tmp_path), clock.now) == ([], 1e9)


class Files:
    """A file system whose conditional writes fail."""

    def __init__(self, error: Exception, *, is_there: bool = False) -> None:
        self.error, self.is_there, self.written = error, is_there, []

    def exists(self, _: str) -> bool:
        return self.is_there

    def pipe_file(self, uri: str, content: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise self.error
        self.written.append((uri, content))


def http_error(status: int) -> OSError:
    error = OSError(errno.EIO, "the store's words")
    error.__cause__ = Exception()
    error.__cause__.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": "X"}}  # type: ignore[attr-defined]
    return error


class ParamValidationError(Exception):
    """Named like the error that an old botocore raises."""


REFUSED_CONDITIONS = {
    "501": http_error(501),
    "400": http_error(400),
    "argument": TypeError("pipe_file() got an unexpected keyword argument 'mode'"),
    "botocore": ParamValidationError("Unknown parameter in input: IfNoneMatch"),
}


@pytest.mark.parametrize("reason", REFUSED_CONDITIONS)
def test_a_store_that_refuses_conditions_gets_a_plain_write(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "time", Clock())
    files = Files(REFUSED_CONDITIONS[reason])
    FsspecStore(files, has_directories=False).create("s3://b/x", b"1")
    assert files.written == [("s3://b/x", b"1")]
    files = Files(REFUSED_CONDITIONS[reason], is_there=True)
    FsspecStore(files, has_directories=False).create("s3://b/x", b"1")
    assert files.written == []


@pytest.mark.parametrize("status", [409, 412])
def test_a_file_that_exists_or_is_being_created_is_left_alone(status: int) -> None:
    files = Files(http_error(status))
    FsspecStore(files, has_directories=False).create("s3://b/x", b"1")
    assert files.written == []


@pytest.mark.parametrize("status", [403, 500, 503])
def test_other_errors_of_a_conditional_write_are_raised(status: int) -> None:
    with pytest.raises(OSError, match="the store's words"):
        FsspecStore(Files(http_error(status)), has_directories=False).create("s3://b/x", b"1")


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
    read, blips = ownership._read, list[bytes | None]()
    monkeypatch.setattr(ownership, "_read", lambda *arguments: blips.pop() if blips else read(*arguments))
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
        full.setattr(os, "link", lambda *_: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        full.setattr(os, "replace", lambda *_: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        with pytest.raises(OSError, match=r"_owner\.json"), storage.own_directory(str(tmp_path / "run")):
            pass
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_links_gets_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", lambda *_: _raise(PermissionError()))
    store, path = stores.open_store(str(tmp_path)), str(tmp_path / "record")
    store.create(path, b"first")
    store.create(path, b"second")
    assert [(tmp_path / name).read_bytes() for name in os.listdir(tmp_path)] == [b"first"]


@pytest.mark.usefixtures("fast")
def test_a_storage_that_keeps_no_record_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_MOST_CREATIONS", 3)
    monkeypatch.setattr(FsspecStore, "create", lambda *_: None)
    with (
        pytest.raises(OSError, match=r"memory://none/_owner\.json, .* could not be read after it was written"),
        storage.own_directory("memory://none"),
    ):
        pass


@pytest.mark.usefixtures("fast")
def test_a_store_that_does_not_answer_costs_heartbeats_but_not_the_directory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ownership, "_SHORT_PATIENCE_SECONDS", 0.0)
    store = type(fsspec.filesystem("memory"))
    with ExitStack() as at_end:
        at_end.enter_context(storage.own_directory("memory://outage"))
        with monkeypatch.context() as outage:
            outage.setattr(store, "cat_file", _raise_connection_error)
            storage.try_to_check_ownership("memory://outage")
            storage.stop_if_lost("memory://outage")
            with pytest.raises(OSError, match="reset"):
                storage.check_ownership("memory://outage", patience=0.0)
            wait_until(lambda: any("the heartbeat in memory" in line for line in caplog.messages))
            time.sleep(3 * BEAT)
        assert sum("the heartbeat in memory" in line for line in caplog.messages) == 1
        storage.check_ownership("memory://outage")
        beat = storage.read_bytes(f"memory://outage/{storage.OWNER}.beat")
        wait_until(lambda: storage.read_bytes(f"memory://outage/{storage.OWNER}.beat") != beat)
        with monkeypatch.context() as outage:
            outage.setattr(store, "cat_file", _raise_connection_error)
            at_end.close()
    assert any("could not be removed" in line for line in caplog.messages), "releasing does not wait for the store"
    with storage.own_directory("memory://outage"):  # at once: this process knows that it needs its record no more
        pass
    assert names_in("memory://outage") == []


def _raise_connection_error(*_: object, **__: object) -> bytes:
    raise ConnectionResetError("reset")


@pytest.mark.usefixtures("fast")
def test_the_heartbeat_goes_on_after_any_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors, beat = [RuntimeError("cannot schedule new futures"), ValueError("bad"), KeyError("x")], ownership._beat
    monkeypatch.setattr(ownership, "_beat", lambda record: _raise(errors.pop()) if errors else beat(record))
    with storage.own_directory(str(tmp_path)):
        os.utime(tmp_path / storage.OWNER, (0, 0))
        wait_until(lambda: (tmp_path / storage.OWNER).stat().st_mtime > time.time() - 60)
    assert (errors, len(caplog.messages)) == ([], 1)


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("of_proc", "of_kill", "expected"),
    [
        (FileNotFoundError(), None, None),  # hidepid=2 hides the processes of other users
        (PermissionError(), PermissionError(), None),
        (FileNotFoundError(), PermissionError(), None),
        (FileNotFoundError(), ProcessLookupError(), False),
    ],
    ids=["hidden", "unreadable", "hidden-of-another-user", "ended"],
)
def test_a_hidden_process_is_not_taken_for_one_that_has_ended(
    of_proc: OSError, of_kill: OSError | None, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = current_process()
    other = processes.Process(**asdict(here) | {"id": 1 << 21})
    read = processes._read_stat
    monkeypatch.setattr(
        processes, "_read_stat", lambda process: _raise(of_proc) if process == other.id else read(process)
    )
    monkeypatch.setattr(os, "kill", lambda *_: _raise(of_kill) if of_kill else None)
    assert (is_running(here), is_running(other)) == (True, expected)


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


def test_a_former_owner_that_fails_keeps_the_upload_of_its_successor() -> None:
    output = "memory://successor/out"
    with pytest.raises(storage.OwnershipLostError), storage.publish_directory(output, marker="done"):
        storage.write_bytes(f"{output}/{storage.OWNER}", other_owner())
        storage.write_bytes(f"{output}/theirs", b"1")
        raise ValueError("of the former owner")
    assert storage.list_files(output) == [storage.CLAIM, "theirs"]


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
