"""Tests reading results of a pipeline from a bucket, to which others may be able to write."""

import os
import pickle
from collections import Counter

import numpy as np
import pytest

from contract.schema import Split
from preprocessing.statistics.summaries import merge_events, merge_readings
from preprocessing.workspace import read_result, write_result


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_records_arrays_and_counters_are_read_as_written(tmp_path):
    path = str(tmp_path / "result")
    value = {"reading": merge_readings([]), "counts": Counter(a=1), "set": {frozenset([2])}, "scalar": np.int64(3)}
    write_result(path, value)
    assert str(read_result(path)) == str(value)
    write_result(path, [merge_events([]), np.arange(3), np.array(["a", "b"])])
    events, numbers, texts = read_result(path)
    np.testing.assert_array_equal(events.by_split, merge_events([]).by_split)
    assert (numbers.tolist(), texts.tolist()) == ([0, 1, 2], ["a", "b"])


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (lambda target: pickle.dumps(Attack(os.mkdir, target)), "posix.mkdir"),
        (lambda target: pickle.dumps(Attack(write_result, target, 1)), "preprocessing.workspace.write_result"),
        (lambda _: b"\x80\x04\x8c\x17preprocessing.workspace\x8c\x0cpickle.loads\x93.", "workspace.pickle.loads"),
        (lambda target: pickle.dumps(Attack(eval, f"open({target!r}, 'w')")), "builtins.eval"),
    ],
    ids=["system", "own function", "dotted name", "eval"],
)
def test_a_result_that_would_run_code_is_refused_and_runs_nothing(attack, name, tmp_path):
    path, target = tmp_path / "result", tmp_path / "harm"
    path.write_bytes(attack(str(target)))
    with pytest.raises(ValueError, match=f"result contains .*{name}, which this job never writes"):
        read_result(str(path))
    assert not target.exists()
    pickle.loads(path.read_bytes())  # it would have
    assert target.exists() or "loads" in name


def test_members_of_enumerations_are_read_as_older_versions_of_python_write_them(tmp_path):
    path = tmp_path / "result"
    path.write_bytes(pickle.dumps(Attack(getattr, Split, "TEST")))
    assert read_result(str(path)) is Split.TEST


def test_getattr_reaches_members_of_enumerations_only(tmp_path):
    path = tmp_path / "result"
    path.write_bytes(pickle.dumps(Attack(getattr, Counter, "__init__")))
    with pytest.raises(
        ValueError, match=r"result contains the attribute __init__ of .*Counter.*, which this job never"
    ):
        read_result(str(path))
    path.write_bytes(pickle.dumps(Attack(getattr, Split, "__init__")))
    with pytest.raises(ValueError, match=r"result contains the attribute __init__ of .*Split.*, which this job never"):
        read_result(str(path))
