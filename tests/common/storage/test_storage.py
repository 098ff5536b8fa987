"""Tests files and their publication, on the local disk and in fsspec's in-memory store."""

import hashlib
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from common import storage
from common.errors import ContractError
from common.storage.cache import Cache

STORE = type(fsspec.filesystem("memory"))


@pytest.fixture
def bucket(request):
    """A bucket of the in-memory store for one test."""
    return f"memory://{request.node.name}"


def fail(monkeypatch, method, error, times):
    """Makes the first calls of a store's method fail; returns the recorded first arguments."""
    calls, whole = [], getattr(STORE, method)

    def failing(self, *arguments, **settings):
        calls.append(Path(arguments[0]).name)
        if len(calls) <= times:
            raise error
        return whole(self, *arguments, **settings)

    monkeypatch.setattr(STORE, method, failing)
    return calls


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def test_a_published_directory_appears_whole(tmp_path):
    destination = str(tmp_path / "deep" / "dataset")
    with storage.publish_directory(destination) as staging:
        storage.write_bytes(f"{staging}/a/b.txt", b"x")
        assert not os.path.exists(destination)
    assert storage.list_files(destination) == ["a/b.txt"]
    assert os.listdir(tmp_path / "deep") == ["dataset"]
    assert os.stat(destination).st_mode & 0o055 == 0o055, "others may read it, as after mkdir"


def test_a_failed_publication_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="stop"), storage.publish_directory(str(tmp_path / "dataset")) as staging:
        storage.write_bytes(f"{staging}/a.txt", b"x")
        raise RuntimeError("stop")
    assert os.listdir(tmp_path) == []


def test_only_an_empty_directory_can_be_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    with storage.publish_directory(str(tmp_path / "empty")) as staging:
        storage.write_bytes(f"{staging}/a.txt", b"new")
    assert (tmp_path / "empty" / "a.txt").read_bytes() == b"new"
    with pytest.raises(FileExistsError, match="choose another"), storage.publish_directory(str(tmp_path / "empty")):
        pass
    assert (tmp_path / "empty" / "a.txt").read_bytes() == b"new"


def test_files_that_appear_during_publication_are_not_overwritten(tmp_path):
    destination = tmp_path / "dataset"
    with pytest.raises(OSError, match="dataset"), storage.publish_directory(str(destination)):
        destination.mkdir()
        (destination / "theirs.txt").write_text("keep")
    assert (destination / "theirs.txt").read_text() == "keep"


def test_a_store_gets_the_marker_last(monkeypatch):
    order = []
    store = type(fsspec.filesystem("memory"))
    put = store.put_file

    def recording_put(self, source, target, **settings):
        order.append(Path(target).name)
        put(self, source, target)

    monkeypatch.setattr(store, "put_file", recording_put)
    with storage.publish_directory("memory://bucket/dataset", marker="manifest.json") as staging:
        for name in ("manifest.json", "z.txt", "a.txt"):
            storage.write_bytes(f"{staging}/{name}", name.encode())
    assert (set(order[:-1]), order[-1]) == ({"a.txt", "z.txt"}, "manifest.json")
    assert storage.read_bytes("memory://bucket/dataset/z.txt") == b"z.txt"
    assert storage.list_files("memory://bucket/dataset") == ["a.txt", "manifest.json", "z.txt"]
    # sha256 of "z.txt", by sha256sum
    assert storage.sha256("memory://bucket/dataset/z.txt").startswith("e966d91c")


@pytest.mark.parametrize("write", ["write_bytes", "upload"])
def test_a_full_disk_keeps_the_old_file_and_nothing_else(tmp_path, write):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "large").write_bytes(bytes(5000))
    given = {"write_bytes": (str(tmp_path / "a"), bytes(5000)), "upload": (f"{tmp_path}/large", f"{tmp_path}/a")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails with an error, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            getattr(storage, write)(*given[write])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert sorted(os.listdir(tmp_path)) == ["a", "large"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_half_written_file_of_a_killed_process_is_not_listed(tmp_path):
    partial = tmp_path / "items.parquet.partial-0123456789abcdef0123456789abcdef"
    for path in (tmp_path / "items.parquet", tmp_path / "items.parquet.partial-mine", partial):
        path.write_bytes(b"")
    whole = ["items.parquet", "items.parquet.partial-mine"]
    assert storage.list_files(str(tmp_path)) == whole
    assert storage.find_files(f"{tmp_path}/*") == [str(tmp_path / name) for name in whole]
    storage.remove_partial(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == whole


def test_an_unknown_scheme_says_what_to_install():
    with pytest.raises(ValueError, match=r"cannot open nosuch://x"):
        storage.exists("nosuch://x/y")


def test_local_paths_and_uris_are_distinguished():
    assert storage.local_path("file:///a/b") == "/a/b"
    with pytest.raises(ValueError, match="not a local path"):
        storage.local_path("s3://bucket/a")


def test_a_store_that_fails_for_a_while_is_retried(monkeypatch, bucket):
    storage.write_bytes(f"{bucket}/a", b"x")
    calls = fail(monkeypatch, "cat_file", ConnectionResetError("reset"), times=2)
    assert storage.read_bytes(f"{bucket}/a") == b"x"
    assert calls == ["a"] * 3


def test_the_error_of_a_dead_store_says_how_long_it_was_retried(monkeypatch, bucket):
    monkeypatch.setenv("CARTWHEEL_STORAGE_PATIENCE_SECONDS", "0.5")
    fail(monkeypatch, "cat_file", ConnectionResetError("reset"), times=10**6)
    with pytest.raises(OSError, match=r"reading memory://.*/a failed for \d+ s: Connection.*check the network"):
        storage.read_bytes(f"{bucket}/a")


def test_denied_access_is_not_retried(monkeypatch, bucket):
    calls = fail(monkeypatch, "pipe_file", PermissionError("Access Denied"), times=10**6)
    with pytest.raises(PermissionError, match=r"access is denied; check the credentials.*Access Denied"):
        storage.write_bytes(f"{bucket}/a", b"x")
    assert len(calls) == 1


def test_an_unwritable_destination_is_refused_before_the_work(monkeypatch, bucket):
    fail(monkeypatch, "pipe_file", PermissionError("Access Denied"), times=10**6)
    is_begun = False
    with pytest.raises(PermissionError), storage.publish_directory(f"{bucket}/out", marker="done"):
        is_begun = True
    assert not is_begun


def test_an_interrupted_upload_leaves_nothing(monkeypatch, bucket):
    with pytest.raises(PermissionError), storage.publish_directory(f"{bucket}/out", marker="done") as staging:
        for name in ("a", "b", "done"):
            storage.write_bytes(f"{staging}/{name}", name.encode())
        fail(monkeypatch, "put_file", PermissionError("Access Denied"), times=1)
    assert storage.list_files(f"{bucket}/out") == []


def test_leftovers_of_a_killed_process_are_replaced(bucket):
    storage.write_bytes(f"{bucket}/out/_unfinished", b"its token")
    storage.write_bytes(f"{bucket}/out/left", b"old")
    with storage.publish_directory(f"{bucket}/out", marker="done") as staging:
        storage.write_bytes(f"{staging}/done", b"")
    assert storage.list_files(f"{bucket}/out") == ["done"]


def test_files_without_a_claim_are_not_replaced(bucket):
    storage.write_bytes(f"{bucket}/out/theirs", b"keep")
    with pytest.raises(FileExistsError, match="choose another"), storage.publish_directory(f"{bucket}/out", marker="m"):
        pass
    assert storage.read_bytes(f"{bucket}/out/theirs") == b"keep"


def test_a_publisher_that_lost_its_output_publishes_nothing(bucket):
    with (
        pytest.raises(storage.OwnershipLostError, match="taken over"),
        storage.publish_directory(f"{bucket}/out", marker="done") as staging,
    ):
        storage.write_bytes(f"{staging}/done", b"first")
        record = storage.read_bytes(f"{bucket}/out/_owner.json").replace(b'"token": "', b'"token": "other')
        storage.write_bytes(f"{bucket}/out/_owner.json", record)
    assert storage.list_files(f"{bucket}/out") == ["_unfinished"]


def test_a_file_damaged_in_transfer_is_sent_again(monkeypatch, bucket, tmp_path):
    (tmp_path / "a").write_bytes(b"whole")
    whole, sent = STORE.put_file, []

    def cutting(self, source, target, **settings):
        whole(self, source, target)
        sent.append(target)
        if len(sent) == 1:
            self.pipe_file(target, b"who")

    monkeypatch.setattr(STORE, "put_file", cutting)
    assert storage.upload(str(tmp_path / "a"), f"{bucket}/a") == sha256(b"whole")
    assert len(sent) == 2
    assert storage.read_bytes(f"{bucket}/a") == b"whole"


def test_a_credential_in_a_uri_is_refused_and_not_repeated():
    given = ("s3://key:planted@bucket/a", "s3://key:12/planted@bucket/a", "https://host/a?X-Amz-Signature=planted")
    for uri in given:  # Amazon's secrets may contain slashes
        with pytest.raises(ValueError, match="may contain a credential") as caught:
            storage.read_bytes(uri)
        assert "planted" not in str(caught.value)


def test_the_cache_is_bounded_and_keeps_files_in_use(bucket):
    for content in (b"aaaa", b"bbbb", b"cccc"):
        storage.write_bytes(f"{bucket}/{content[:1].decode()}", content)
    cache = Cache(max_bytes=8)  # two files of four bytes
    first = cache.acquire(f"{bucket}/a", sha256(b"aaaa"))
    for name in ("b", "c"):
        cache.acquire(f"{bucket}/{name}", sha256(name.encode() * 4))
        cache.release(sha256(name.encode() * 4))
    assert Path(first).read_bytes() == b"aaaa", "in use, though used longest ago"
    assert sorted(os.listdir(os.path.dirname(first))) == sorted([sha256(b"aaaa"), sha256(b"cccc")])


def test_threads_that_need_the_same_file_fetch_it_once(bucket, monkeypatch):
    storage.write_bytes(f"{bucket}/a", b"aaaa")
    cache, fetched = Cache(max_bytes=8), []
    fetch = cache._fetch

    def fetch_slowly(uri, checksum):
        fetched.append(uri)
        time.sleep(0.1)
        fetch(uri, checksum)

    monkeypatch.setattr(cache, "_fetch", fetch_slowly)
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(lambda _: cache.acquire(f"{bucket}/a", sha256(b"aaaa")), range(4)))
    assert len(set(paths)) == len(fetched) == 1


def test_a_fetched_file_with_another_checksum_is_refused(bucket):
    storage.write_bytes(f"{bucket}/a", b"damaged")
    with pytest.raises(ContractError, match="is damaged"), storage.local_copy(f"{bucket}/a", sha256(b"whole")):
        pass


def test_a_remote_file_is_read_in_pieces(bucket):
    storage.write_bytes(f"{bucket}/a", bytes(range(10)))
    with storage.open_binary(f"{bucket}/a") as file:
        file.seek(7)
        assert file.read(100) == bytes([7, 8, 9])
        file.seek(2)
        assert file.read(3) == bytes([2, 3, 4])


def test_patterns_find_files_of_a_store(bucket):
    for name in ("x/events_1.csv", "x/events_2.csv", "x/tree.csv"):
        storage.write_bytes(f"{bucket}/{name}", b"")
    found = storage.find_files(f"{bucket}/x/events_*.csv")
    assert [Path(uri).name for uri in found] == ["events_1.csv", "events_2.csv"]
    assert all(uri.startswith("memory://") for uri in found)
