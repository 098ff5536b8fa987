"""Files and publication, local and in a store (fsspec's in-memory one stands for it)."""

import os
from pathlib import Path

import fsspec
import pytest

from contract import storage


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


def test_an_empty_directory_may_be_published_over_and_a_full_one_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with storage.publish_directory(str(tmp_path / "empty")) as staging:
        storage.write_bytes(f"{staging}/a.txt", b"new")
    assert (tmp_path / "empty" / "a.txt").read_bytes() == b"new"
    with pytest.raises(FileExistsError, match="choose another"), storage.publish_directory(str(tmp_path / "empty")):
        pass
    assert (tmp_path / "empty" / "a.txt").read_bytes() == b"new"


def test_what_came_in_between_is_not_overwritten(tmp_path):
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
    assert order == ["a.txt", "z.txt", "manifest.json"]
    assert storage.read_bytes("memory://bucket/dataset/z.txt") == b"z.txt"
    assert storage.list_files("memory://bucket/dataset") == ["a.txt", "manifest.json", "z.txt"]
    # sha256 of "z.txt", by sha256sum
    assert storage.sha256("memory://bucket/dataset/z.txt").startswith("e966d91c")


def test_an_unknown_scheme_says_what_to_install():
    with pytest.raises(ValueError, match=r"cannot open nosuch://x"):
        storage.exists("nosuch://x/y")


def test_a_local_path_is_told_from_a_uri():
    assert storage.local_path("file:///a/b") == "/a/b"
    with pytest.raises(ValueError, match="not a local path"):
        storage.local_path("s3://bucket/a")
