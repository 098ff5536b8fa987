"""Tests the download of the real data, with a fake Kaggle client."""

import sys
from types import SimpleNamespace

import pytest

from preprocessing.download import FILES, download


def use_client(monkeypatch, dataset_download):
    monkeypatch.setitem(sys.modules, "kagglehub", SimpleNamespace(dataset_download=dataset_download))


def test_the_four_files_are_copied(monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in FILES:
        (cache / name).write_text(name)
    use_client(monkeypatch, lambda _: str(cache))
    result = download(str(tmp_path / "data"))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(FILES)
    assert (tmp_path / "data" / "events.csv").read_text() == "events.csv"
    assert set(result["files"]) == set(FILES)


def test_without_a_network_the_error_says_what_to_do_and_nothing_is_left(monkeypatch, tmp_path):
    def fail(handle):
        raise OSError("Network is unreachable\nand more")

    use_client(monkeypatch, fail)
    with pytest.raises(ConnectionError, match=r"OSError: Network is unreachable\).*KAGGLE_USERNAME.*synthesize"):
        download(str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


def test_an_incomplete_download_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "events.csv").write_text("x")
    use_client(monkeypatch, lambda _: str(tmp_path / "cache"))
    with pytest.raises(ConnectionError, match=r"lacks item_properties_part1\.csv"):
        download(str(tmp_path / "data"))
