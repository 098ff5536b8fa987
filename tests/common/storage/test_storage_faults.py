"""Tests files and their publication while requests to an object store fail: local servers behind a faulty proxy."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from common import storage
from tests.stores.faulty_proxy import Fault, FaultyProxy, every, for_a_while, from_the_first, start_proxy
from tests.stores.servers import ObjectStore, start_store

CONTENTS = {"a": b"a" * 100, "deep/b": b"b" * 200_000, "deep/c": b"", "done": b"{}"}
"""Contents of a directory by file name; `done` is its marker."""

TRANSIENT = [
    [Fault.INTERNAL_ERROR, Fault.OVERLOADED],
    [Fault.RESET, Fault.CUT_REQUEST],
    [Fault.LOST_ANSWER, Fault.CUT_ANSWER],
    [Fault.SLOW],
]

OUTAGE_REQUESTS = {"s3": 12, "gs": 3}
"""Number of failed requests in an outage.

The client of S3 gives up earlier; the client of Google would itself retry for half a minute.
"""
LONG_PATIENCE = ("CARTWHEEL_STORAGE_PATIENCE_SECONDS", "900")
SHORT_PATIENCE = ("CARTWHEEL_STORAGE_PATIENCE_SECONDS", "1")
"""Environment variable that makes storage give up after a second. Tests set it only during a fault.

Otherwise, a slow request on a busy machine would fail instead of being retried.
"""

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module", params=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    with start_store(request.param) as running:
        yield running


@pytest.fixture
def proxy(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Starts the proxy and points the clients of this test to it."""
    with start_proxy(store.port) as running:
        for name, value in store.environment(running.port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(*LONG_PATIENCE)
        yield running
        running.plan = lambda _: None
        fsspec.get_filesystem_class(store.scheme).clear_instance_cache()


def publish(store: ObjectStore, name: str) -> None:
    with storage.publish_directory(f"{store.bucket}/{name}", marker="done") as staging:
        for file, content in CONTENTS.items():
            storage.write_bytes(f"{staging}/{file}", content)


def assert_whole(store: ObjectStore, name: str) -> None:
    assert store.list_files(f"{name}/") == sorted(CONTENTS)
    assert {file: store.read(f"{name}/{file}") for file in CONTENTS} == CONTENTS


# Google's client retries by itself, after a second or more, so all faults are in one test there
@pytest.mark.parametrize(
    ("store", "faults"),
    [*(("s3", faults) for faults in TRANSIENT), ("gs", [fault for faults in TRANSIENT for fault in faults])],
    indirect=["store"],
)
def test_temporary_failures_do_no_harm(store: ObjectStore, proxy: FaultyProxy, faults: list[Fault]) -> None:
    proxy.plan = every(5, faults)
    name = "-".join(faults)
    publish(store, name)
    for file, content in CONTENTS.items():
        assert storage.read_bytes(f"{store.bucket}/{name}/{file}") == content
    assert storage.list_files(f"{store.bucket}/{name}") == sorted(CONTENTS)
    assert_whole(store, name)


# Google's client waits half a minute before it gives up, except for denied access
@pytest.mark.parametrize(
    ("store", "first", "fault"),
    [
        ("s3", "deep/b", Fault.FORBIDDEN),
        ("s3", "done", Fault.INTERNAL_ERROR),
        ("s3", "deep/b", Fault.RESET),
        ("s3", "done", Fault.CUT_REQUEST),
        ("gs", "deep/b", Fault.FORBIDDEN),
    ],
    indirect=["store"],
)
def test_a_failed_publication_never_looks_complete(
    store: ObjectStore, proxy: FaultyProxy, first: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*SHORT_PATIENCE)
    proxy.plan = from_the_first(lambda request: request.is_write and request.is_about(first), fault)
    expected = "access is denied" if fault == Fault.FORBIDDEN else r"failed for \d+ s.*check the network"
    with pytest.raises(OSError, match=expected):
        publish(store, fault)
    assert "done" not in store.list_files(f"{fault}/")

    monkeypatch.setenv(*LONG_PATIENCE)
    proxy.plan = lambda _: None
    publish(store, fault)
    assert_whole(store, fault)


@pytest.mark.parametrize("store", ["s3"], indirect=True)
def test_a_marker_without_an_answer_is_only_in_a_complete_directory(
    store: ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*SHORT_PATIENCE)
    proxy.plan = from_the_first(lambda request: request.is_write and request.is_about("/done"), Fault.LOST_ANSWER)
    with pytest.raises(OSError, match="check the network"):
        publish(store, "lost")
    assert {file: store.read(f"lost/{file}") for file in CONTENTS} == CONTENTS


def test_a_network_outage_is_waited_for(store: ObjectStore, proxy: FaultyProxy) -> None:
    outage = for_a_while(OUTAGE_REQUESTS[store.scheme], lambda _: True, Fault.RESET)
    faults = []
    proxy.plan = lambda request: faults.append(outage(request)) or faults[-1]
    storage.write_bytes(f"{store.bucket}/pause", b"x")
    assert store.read("pause") == b"x"
    assert faults.count(Fault.RESET) == OUTAGE_REQUESTS[store.scheme]


def test_an_interrupted_multipart_upload_arrives_whole(store: ObjectStore, proxy: FaultyProxy, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * (60 << 12))  # 60 MiB: more than one part in both stores
    proxy.plan = every(4, [Fault.CUT_REQUEST])
    sha256 = storage.upload(str(tmp_path / "large"), f"{store.bucket}/large")
    assert store.list_files("large") == [""]
    assert storage.sha256(f"{store.bucket}/large") == sha256 == storage.sha256(str(tmp_path / "large"))


def test_a_missing_bucket_is_named_and_not_created(store: ObjectStore, proxy: FaultyProxy) -> None:
    with pytest.raises(OSError, match=rf"{store.scheme}://mistaken.* does not exist; create it or correct its name"):
        storage.write_bytes(f"{store.scheme}://mistaken/a", b"x")


def test_wrong_credentials_are_reported_before_the_work(store: ObjectStore, proxy: FaultyProxy) -> None:
    proxy.plan = every(1, [Fault.WRONG_KEY])
    is_begun = False
    refused = pytest.raises(PermissionError, match=r"access is denied; check the credentials")
    with refused, storage.publish_directory(f"{store.bucket}/refused", marker="done"):
        is_begun = True
    assert not is_begun


def test_read_only_credentials_are_reported_before_the_work(store: ObjectStore, proxy: FaultyProxy) -> None:
    proxy.plan = lambda request: Fault.FORBIDDEN if request.is_write else None
    with pytest.raises(PermissionError, match=r"access is denied.*allow list, read, write and delete"):
        storage.check_writable(f"{store.bucket}/refused")


@pytest.mark.parametrize("store", ["s3"], indirect=True)  # Google's client is anonymous with an emulator
def test_missing_credentials_say_how_to_set_them(
    store: ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PermissionError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        storage.read_bytes(f"{store.bucket}/a")
