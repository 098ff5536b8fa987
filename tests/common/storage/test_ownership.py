"""One owner per directory: two processes, two PID namespaces, a suspended owner, local and in a store."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from common import storage
from common.storage import ownership
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
    storage.check_ownership(sys.argv[1], often=True)
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
    """The start of a command to run in a new PID namespace."""
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


def other_owner(beat: float, host: str = "elsewhere") -> bytes:
    """The record of a process on another machine, with its last heartbeat `beat` seconds from now."""
    process = {"host": host, "pod": "train-0-x7k2p", "id": 7, "boot": "other", "namespace": "pid:[1]", "start": "1"}
    now = time.time()
    return json.dumps({"token": "other", "process": process, "since": now - 3600, "beat": now + beat}).encode()


def test_a_second_process_is_refused_at_once_and_the_first_is_unharmed(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with running(OWN, str(workdir)) as first:
        assert first_line(first) == "owns"
        expected = (
            rf"run is in use by process {first.pid} on host .*, since \d{{4}}-.* UTC, last heartbeat \d s ago; "
            "wait until it ends, end it, or choose another directory"
        )
        started = time.monotonic()
        with pytest.raises(storage.OwnershipError, match=expected), storage.own_directory(str(workdir)):
            pass
        assert time.monotonic() - started < 1
        assert first.communicate("\n")[0] == "still owns\n"
    assert os.listdir(tmp_path) == [], "its own new directory is removed while it is empty"
    with storage.own_directory(str(workdir)), storage.own_directory(f"{tmp_path}/./run"):  # a thread keeps what it owns
        assert os.listdir(workdir) == ["_owner.json"]


def test_another_thread_of_the_process_is_refused(tmp_path: Path) -> None:
    expected = rf"process {os.getpid()} on host"
    with storage.own_directory(str(tmp_path)), pytest.raises(storage.OwnershipError, match=expected):
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
            pytest.raises(storage.OwnershipError, match=r"process \d+ on host"),
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


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("beat", [-3600.0, -STALE - 0.1, 0.0, 3600.0])
def test_a_silent_owner_of_another_machine_is_replaced_whatever_its_clock(
    beat: float,
) -> None:
    bucket = f"memory://silent{beat:g}"
    storage.write_bytes(f"{bucket}/{storage.OWNER}", other_owner(beat))
    with storage.own_directory(bucket):
        assert json.loads(storage.read_bytes(f"{bucket}/{storage.OWNER}"))["process"]["id"] == os.getpid()
    assert storage.list_files(bucket) == []


@pytest.mark.usefixtures("fast")
def test_a_beating_owner_of_another_machine_is_kept_even_if_its_clock_is_slow() -> None:
    record = f"memory://beating/{storage.OWNER}"
    storage.write_bytes(record, other_owner(-7200))
    beat = threading.Timer(BEAT, lambda: storage.write_bytes(record, other_owner(-7199)))
    beat.start()
    expected = "process 7 on host elsewhere, pod train-0-x7k2p, since"
    with pytest.raises(storage.OwnershipError, match=expected), storage.own_directory("memory://beating"):
        pass
    beat.join()
    assert json.loads(storage.read_bytes(record))["token"] == "other"


@pytest.mark.usefixtures("fast")
def test_an_owner_in_a_store_loses_it_to_a_successor_and_leaves_the_record_of_the_successor() -> None:
    record = f"memory://lost/{storage.OWNER}"
    with (
        pytest.raises(storage.OwnershipError, match="taken over by process 7 on host elsewhere"),
        storage.own_directory("memory://lost"),
    ):
        storage.check_ownership("memory://lost/parts/walk")
        storage.write_bytes(record, other_owner(0))
        storage.check_ownership("memory://lost-and-found")  # another directory
        storage.check_ownership("memory://lost/parts/walk")
    assert json.loads(storage.read_bytes(record))["token"] == "other"


def test_of_two_that_create_a_record_without_conditional_writes_one_owns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    record = f"memory://race/{storage.OWNER}"
    monkeypatch.setattr(FsspecStore, "create", FsspecStore.write)
    reads: list[str] = []
    read = FsspecStore.read

    def read_late(self: FsspecStore, uri: str, *arguments: int) -> bytes:
        if len(reads) == 1:  # the other process writes between this one's creation and its look at the result
            self.write(uri, other_owner(0))
        reads.append(uri)
        return read(self, uri, *arguments)

    monkeypatch.setattr(FsspecStore, "read", read_late)
    monkeypatch.setattr(ownership, "_has_ended", lambda found, *_: pytest.fail(f"refused by {found.process}"))
    with pytest.raises(pytest.fail.Exception, match="refused by process 7 on host elsewhere"):
        storage.own_directory("memory://race").__enter__()
    assert reads == [record] * 2


@pytest.mark.usefixtures("fast")
def test_a_removed_record_stops_its_owner_and_a_damaged_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / storage.OWNER).write_text('{"token": ')
    with storage.own_directory(str(tmp_path)):
        assert json.loads((tmp_path / storage.OWNER).read_text())["process"]["id"] == os.getpid()
        (tmp_path / storage.OWNER).unlink()
        with pytest.raises(storage.OwnershipError, match=r"_owner.json was removed, so .* may have another owner"):
            storage.check_ownership(str(tmp_path))


@pytest.mark.usefixtures("fast")
def test_a_store_that_does_not_answer_costs_heartbeats_but_not_the_directory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with storage.own_directory("memory://outage"):
        with monkeypatch.context() as outage:
            outage.setattr(type(fsspec.filesystem("memory")), "cat_file", _raise_connection_error)
            time.sleep(4 * BEAT)
        warnings = [line for line in caplog.messages if "the heartbeat of this process" in line]
        assert len(warnings) == 1, warnings
        storage.check_ownership("memory://outage")


def _raise_connection_error(*_: object, **__: object) -> bytes:
    raise ConnectionResetError("reset")


def test_two_publishers_of_one_output_do_not_meet(tmp_path: Path) -> None:
    output = str(tmp_path / "dataset")
    abandoned = tmp_path / ".dataset.partial-killed"
    abandoned.mkdir()
    with storage.own_output(output), pytest.raises(storage.OwnershipError, match="dataset is in use by"):
        in_thread(lambda: storage.publish_directory(output).__enter__())
    assert abandoned.exists(), "it could be the other's"
    with storage.publish_directory(output) as staging:
        storage.write_bytes(f"{staging}/a", b"")
    assert os.listdir(tmp_path) == ["dataset"]
