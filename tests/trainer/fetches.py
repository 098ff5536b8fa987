"""Counts how often files of a store are fetched."""

from collections import Counter

import pytest

from common.storage.cache import Cache


def count_fetches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Installs a cache that keeps a file only while it is in use; returns the number of fetches by file name."""
    cache, fetches = Cache(max_bytes=0), Counter[str]()
    fetch = cache._fetch

    def count(uri: str, sha256: str) -> None:
        fetches[uri.rpartition("/")[2]] += 1
        fetch(uri, sha256)

    monkeypatch.setattr(cache, "_fetch", count)
    monkeypatch.setattr("common.storage.files.process_cache", lambda: cache)
    return fetches
