"""Tests reading results of a pipeline from a bucket, to which others may be able to write."""

import base64
import dataclasses
import os
import pickle
from collections import Counter

import numpy as np
import pytest

from contract.schema import Split
from preprocessing.histograms import Histogram
from preprocessing.statistics.correlation import Moments
from preprocessing.statistics.summaries import ReadingSummary, merge_events, merge_readings
from preprocessing.timelines import Cleaning
from preprocessing.workspace import read_result, write_result


@dataclasses.dataclass(frozen=True)
class Everything:
    """A record with a field of each type."""

    split: Split
    counts: Counter[str]
    by_day: dict[int, np.ndarray]
    examples: dict[str, tuple[tuple[str, int, str], ...]]
    partitions: frozenset[int]
    parts: list[Cleaning]
    moments: Moments
    histogram: Histogram
    ratio: float


def plain(value):
    """Converts arrays to lists with their types, so that records can be compared."""
    if isinstance(value, np.ndarray | np.generic):
        return [value.dtype.str, value.tolist()]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


def test_records_arrays_and_counters_are_read_as_written(tmp_path):
    path = str(tmp_path / "result")
    value = Everything(
        split=Split.TEST,
        counts=Counter({"a \ud800": 1, "Ж": 2}),
        by_day={16_000: np.arange(6).reshape(2, 3)},
        examples={"reason": (("events.csv", np.int64(5), 'a,"b'), ("events.csv", 7, ""))},
        partitions=frozenset([3, 1]),
        parts=[Cleaning(1, 2), Cleaning(0, 0)],
        moments=Moments(3, np.array([2**70, 1], object), np.array([[2**70, 1], [1, 0]], object)),
        histogram=Histogram(np.empty(0, np.int64), np.empty(0, np.int64), 2),
        ratio=0.1,
    )
    write_result(path, value, Everything)
    read = read_result(path, Everything)
    assert plain(read) == plain(value)
    assert [type(part) for part in (read.split, read.counts, read.partitions)] == [Split, Counter, frozenset]
    read.by_day[16_000][0] = 1  # as writable as before

    for name, merged in (("reading", merge_readings([])), ("events", merge_events([]))):  # of empty collections
        write_result(f"{path}-{name}", merged, type(merged))
        assert plain(read_result(f"{path}-{name}", type(merged))) == plain(merged)
    write_result(path, b"ARROW\0", bytes)
    assert read_result(path, bytes) == b"ARROW\0"


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


OBJECTS = base64.b64encode(pickle.dumps(1)).decode()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (pickle.dumps(Attack(os.mkdir, "harm")), ReadingSummary),
        (b"{}", ReadingSummary),
        (b'{"duplicates": 1, "robot_visitors": 2, "more": 3}', Cleaning),
        (b'{"duplicates": true, "robot_visitors": 2}', Cleaning),
        (b'[["a", "b"]]', Counter[str]),
        (b'["nothing"]', list[Split]),
        (b'["a", 1, "b", 2]', tuple[str, int, str]),
        (b"[" * 100_000, list[int]),
        (b'{"values": ["|O", [1], "%s"], "counts": ["<i8", [0], ""], "resolution": 0}' % OBJECTS.encode(), Histogram),
        (b'{"values": ["O,O", [1], "AAAA"], "counts": ["<i8", [0], ""], "resolution": 0}', Histogram),
        (b'{"values": ["<i8", [2], "AAAA"], "counts": ["<i8", [0], ""], "resolution": 0}', Histogram),
        (b'{"values": ["no type", [0], ""], "counts": ["<i8", [0], ""], "resolution": 0}', Histogram),
    ],
    ids=[
        "pickle",
        "no fields",
        "another field",
        "truth",
        "text count",
        "no member",
        "long tuple",
        "deep",
        "pickled array",
        "array of objects",
        "short array",
        "type of array",
    ],
)
def test_a_result_of_another_program_is_refused_and_runs_nothing(content, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result").write_bytes(content)
    with pytest.raises(ValueError, match=r"result is damaged \(.*\), or another program has written to it; check who"):
        read_result(str(tmp_path / "result"), kind)
    assert os.listdir(tmp_path) == ["result"]
