import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from tests.trainer.tiny_runs import make_config
from tests.warm_python import start_python
from trainer import recommend as job
from trainer.data.offer import OfferRules
from trainer.models.trained_run import TrainedRun
from trainer.recommend import Request, write_recommendations
from trainer.runs.blend_record import RANKINGS, BlendRecord, BlendWeights

ITEMS = ["a", "b", "c", "d"]


@pytest.fixture
def dataset(tmp_path):
    return build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "b", "view", 2), ("anna", "a", "view", 1), ("bob", "d", "view", 3)],
        validation=[("anna", "unknown", "view", 10)],
        test=[("anna", "a", "view", 20), ("bob", "a", "view", 21), ("stranger", "c", "view", 22)],
        visitors=["anna", "bob", "absent"],
        items=ITEMS,
    )


@pytest.fixture
def model():
    """Ranks c, d, b, a for anna; d, c, b, a for bob; a, b, c, d for unknown visitors."""
    visitors, items = np.array([[1, 0], [0, 1], [0, 0]]), np.array([[1, 1], [2, 2], [9, 8], [8, 9]])
    return DotModel(visitors, items, np.array([0.4, 0.3, 0.2, 0.1]))


def write(model, dataset, output, k, visitor_ids=None, formats=("jsonl",), checksum="of the model", **rules):
    request = Request(k=k, visitor_ids=visitor_ids, formats=formats, rules=OfferRules(**rules))
    return write_recommendations(model, dataset, str(output), request, model_checksum=checksum)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_visitors_with_a_history_get_new_items_best_first(dataset, model, tmp_path):
    summary = write(model, dataset, tmp_path / "out", k=2)
    rows = lines(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")
    assert [row["visitor_id"] for row in rows] == ["anna", "bob", "stranger"]
    # anna has seen a and b; bob has seen d in training and a in the test window; stranger, who is new in the test
    # window, has seen c there, and is ranked for like an unknown visitor
    assert [[item["item_id"] for item in row["items"]] for row in rows] == [["c", "d"], ["c", "b"], ["a", "b"]]
    assert rows[0]["items"][0]["score"] == np.float32(9.2)
    assert (summary["visitors"], summary["visitors_unknown"], summary["k"]) == (3, 0, 2)
    assert summary["files"] == {"jsonl": [str(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")]}
    assert json.loads((tmp_path / "out" / "recommendations.json").read_text()) == summary


def test_a_list_is_shorter_if_too_few_items_are_left(dataset, model, tmp_path):
    write(model, dataset, tmp_path / "out", k=4)
    rows = lines(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")
    assert [len(row["items"]) for row in rows] == [2, 2, 3]


def test_parquet_and_json_lines_hold_the_same_lists(dataset, model, tmp_path):
    summary = write(model, dataset, tmp_path / "out", 4, ["zoe", "bob"], ["parquet", "jsonl"])
    (table,), (text,) = summary["files"]["parquet"], summary["files"]["jsonl"]
    rows, parsed = pq.read_table(table).to_pylist(), lines(Path(text))
    assert [row["visitor_id"] for row in rows] == ["zoe", "bob"]
    assert [row["item_id"] for row in rows] == [["a", "b", "c", "d"], ["c", "b"]]
    assert rows == [
        {
            "visitor_id": row["visitor_id"],
            "item_id": [item["item_id"] for item in row["items"]],
            "score": [item["score"] for item in row["items"]],
        }
        for row in parsed
    ]


def test_requested_visitors_keep_their_order_and_unknown_ones_get_popular_items(dataset, model, tmp_path):
    summary = write(model, dataset, tmp_path / "out", 3, ["zoe", "stranger", "bob"])
    # stranger is new after the first cut; their history, item c, is in the dataset
    assert recommended(tmp_path / "out") == {"zoe": ["a", "b", "c"], "stranger": ["a", "b", "d"], "bob": ["c", "b"]}
    assert list(recommended(tmp_path / "out")) == ["zoe", "stranger", "bob"]
    assert summary["visitors_unknown"] == 1


@pytest.fixture
def stocked(tmp_path):
    """The same shop, but item c is not available, the availability of a is unknown, and d and a have titles."""
    return build_dataset(
        str(tmp_path / "stocked"),
        train=[("anna", "b", "view", 2), ("bob", "d", "view", 3)],
        visitors=["anna", "bob", "absent"],
        items=ITEMS,
        categories={"a": ["top"], "b": ["top", "low"]},
        available={"b": True, "c": False, "d": True},
        titles={"d": "Déjà vu", "a": "An item"},
    )


def recommended(output):
    rows = lines(output / "recommendations-00000-of-00001.jsonl")
    return {row["visitor_id"]: [item["item_id"] for item in row["items"]] for row in rows}


def test_unavailable_items_are_recommended_only_on_request(stocked, model, tmp_path):
    # without the mask, anna gets c, d, a and bob gets c, b, a
    summary = write(model, stocked, tmp_path / "out", 2)
    assert recommended(tmp_path / "out") == {"anna": ["d", "a"], "bob": ["b", "a"]}
    assert summary["offer"] == {"offered": 3, "excluded": {"unavailable": 1, "denied": 0, "category": 0}}
    write(model, stocked, tmp_path / "all", 2, include_unavailable=True)
    assert recommended(tmp_path / "all") == {"anna": ["c", "d"], "bob": ["c", "b"]}


def test_denied_items_and_categories_are_not_recommended(stocked, model, tmp_path):
    write(model, stocked, tmp_path / "denied", 4, denied=["a"])
    assert recommended(tmp_path / "denied") == {"anna": ["d"], "bob": ["b"]}
    write(model, stocked, tmp_path / "low", 4, without_categories=["low"])
    assert recommended(tmp_path / "low") == {"anna": ["d", "a"], "bob": ["a"]}
    write(model, stocked, tmp_path / "top", 4, only_categories=["top"])
    assert recommended(tmp_path / "top") == {"anna": ["a"], "bob": ["b", "a"]}


def test_titles_are_in_the_files_where_they_are_known(stocked, model, tmp_path):
    summary = write(model, stocked, tmp_path / "out", 4, ["anna", "bob"], ["parquet", "jsonl"])
    rows = lines(tmp_path / "out" / "recommendations-00000-of-00001.jsonl")
    titles = [[item["title"] for item in row["items"]] for row in rows]
    assert titles == [["Déjà vu", "An item"], [None, "An item"]]
    (table,) = summary["files"]["parquet"]
    assert pq.read_table(table)["title"].to_pylist() == titles


def test_files_of_a_catalogue_without_titles_have_none(dataset, model, tmp_path):
    summary = write(model, dataset, tmp_path / "out", 2, formats=["parquet", "jsonl"])
    assert pq.read_table(summary["files"]["parquet"][0]).column_names == ["visitor_id", "item_id", "score"]
    first = lines(Path(summary["files"]["jsonl"][0]))[0]["items"][0]
    assert list(first) == ["item_id", "score"]


FIVE = ["anna", "bob", "x", "y", "z"]


@pytest.fixture
def two_per_shard(monkeypatch):
    monkeypatch.setattr(job, "SHARD_ENTRIES", 2)  # two lists of one item


def test_many_visitors_are_divided_into_shards(dataset, model, tmp_path, two_per_shard):
    summary = write(model, dataset, tmp_path / "out", 1, FIVE)
    names = [f"recommendations-{shard:05d}-of-00003.jsonl" for shard in range(3)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "recommendations.json"]
    ids = [row["visitor_id"] for name in names for row in lines(tmp_path / "out" / name)]
    assert ids == FIVE
    assert len(summary["files"]["jsonl"]) == 3


@pytest.mark.parametrize("k", [0, 5])
def test_a_k_above_the_catalogue_size_or_below_1_is_refused(dataset, model, tmp_path, k):
    with pytest.raises(ValueError, match="k must be from 1 to 4"):
        write(model, dataset, tmp_path / "out", k)


def test_an_empty_list_of_visitors_is_refused(dataset, model, tmp_path):
    with pytest.raises(ValueError, match="no visitors to recommend to"):
        write(model, dataset, tmp_path / "out", 1, [])


def test_a_failure_before_the_first_shard_leaves_nothing(dataset, model, tmp_path):
    model.vectors.assign(np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="not finite"):
        write(model, dataset, tmp_path / "out", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_earlier_recommendations_are_not_replaced(dataset, model, tmp_path):
    write(model, dataset, tmp_path / "out", 1)
    with pytest.raises(FileExistsError):
        write(model, dataset, tmp_path / "out", 1)


class OneOfTwoWorkers:
    """Replicas of one of two workers. The other worker does not exist, so its part stays zero."""

    workers = 2

    def __init__(self, worker):
        self.worker, self.is_chief = worker, worker == 0

    def sum_over_workers(self, values):
        return values


@pytest.mark.parametrize("worker", [0, 1])
def test_the_progress_of_each_worker_ends_at_all_visitors(dataset, model, monkeypatch, worker):
    monkeypatch.setattr(job, "visitors_at_once", lambda *_: 2)
    audience = job._choose_visitors(dataset, FIVE)
    rank = job._compile_ranking(model, audience, np.ones(len(ITEMS), bool), 1, OneOfTwoWorkers(worker))
    progress = []
    rank(slice(0, 5), progress.append)
    # the chief ranks the first and the last of the chunks 0-1, 2-3 and 4
    assert progress == ([2, 3, 0] if worker == 0 else [4, 1])


@pytest.fixture
def interrupted(dataset, model, tmp_path, two_per_shard, monkeypatch):
    """Interrupts a command while it writes the second of three shards; returns the list of shards ranked afterwards."""
    ranked = []
    compile_ranking = job._compile_ranking

    def compile_counting(*arguments):
        rank = compile_ranking(*arguments)

        def count(visitors, on_progress):
            ranked.append(visitors.start // 2)
            return rank(visitors, on_progress)

        return count

    monkeypatch.setattr(job, "_compile_ranking", compile_counting)
    write_bytes = job.storage.write_bytes

    def write_half(path, content):
        write_bytes(path, content)
        if path.endswith("00001-of-00003.jsonl"):
            write_bytes(path, content[:10])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("trainer.serving.resumable_output.storage.write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            write(model, dataset, tmp_path / "out", 1, FIVE)
    assert not (tmp_path / "out").exists()
    ranked.clear()
    return ranked


def test_an_interrupted_command_resumes_with_the_unfinished_shards(
    dataset, model, tmp_path, two_per_shard, interrupted
):
    (tmp_path / "out.partial" / "recommendations-00002-of-00003.jsonl.partial-123").write_bytes(b"torn")
    summary = write(model, dataset, tmp_path / "out", 1, FIVE)
    assert interrupted == [1, 2]
    whole = write(model, dataset, tmp_path / "whole", 1, FIVE)
    resumed, uninterrupted = (contents(tmp_path / name) for name in ("out", "whole"))
    for files in (resumed, uninterrupted):
        files.pop("recommendations.json")  # names the output
    assert resumed == uninterrupted
    assert summary | {"output": 0, "files": 0} == whole | {"output": 0, "files": 0}
    assert not (tmp_path / "out.partial").exists()


def test_a_damaged_shard_is_written_again(dataset, model, tmp_path, interrupted):
    (tmp_path / "out.partial" / "recommendations-00000-of-00003.jsonl").write_bytes(b"{}")
    write(model, dataset, tmp_path / "out", 1, FIVE)
    assert interrupted == [0, 1, 2]


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"k": 2}, "k: 1, now 2"),
        ({"checksum": "another"}, "model: of the model, now another"),
        ({"visitor_ids": FIVE[:4]}, "visitors: "),
        ({"denied": ["a"]}, "offered: "),
        ({"formats": ["parquet"]}, r"formats: \['jsonl'\], now \['parquet'\]"),
    ],
)
def test_another_command_does_not_resume_an_interrupted_one(
    dataset, model, tmp_path, interrupted, monkeypatch, changed, difference
):
    before = contents(tmp_path / "out.partial")
    with pytest.raises(FileExistsError, match=difference):
        write(model, dataset, tmp_path / "out", **({"k": 1, "visitor_ids": FIVE} | changed))
    assert contents(tmp_path / "out.partial") == before


def test_a_directory_at_the_path_of_the_unfinished_output_is_left_alone(dataset, model, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match="contains files, but no record of an interrupted command"):
        write(model, dataset, tmp_path / "out", 1)
    assert contents(tmp_path / "out.partial") == {"mine": b"kept"}


def test_an_object_store_holds_unfinished_files_at_their_final_path(dataset, model, two_per_shard, interrupted):
    out = "memory://bucket/out"
    job.storage.remove("memory://bucket")
    write(model, dataset, out, 1, FIVE)
    names = [f"recommendations-{shard:05d}-of-00003.jsonl" for shard in range(3)]
    assert job.storage.list_files(out) == [*names, "recommendations.json"]
    with pytest.raises(FileExistsError):
        write(model, dataset, out, 1, FIVE)


HANGING = """
import itertools, sys, time
import numpy as np
from tests.trainer.ranking.fakes import DotModel
from tests.trainer.tiny_runs import make_config
from trainer import recommend as job
from trainer.data.dataset import open_dataset

job.SHARD_ENTRIES = 20  # ten visitors per shard
compile_ranking = job._compile_ranking
shards = itertools.count()
def compile_hanging(*arguments):
    rank = compile_ranking(*arguments)
    def rank_or_hang(visitors, on_progress):
        if next(shards) == int(sys.argv[3]):
            time.sleep(86_400)
        return rank(visitors, on_progress)
    return rank_or_hang
job._compile_ranking = compile_hanging
dataset, vectors = open_dataset(sys.argv[1]), np.random.default_rng(0).normal(size=(24, 8))
model = DotModel(vectors[:20], vectors[20:], np.zeros(4))
request = job.Request(k=2, visitor_ids=[f"v{number}" for number in range(200)])
job.write_recommendations(model, dataset, sys.argv[2], request, model_checksum="M")
"""


NUM_SHARDS = 20


@pytest.mark.integration
@pytest.mark.slow
def test_a_killed_command_resumes_and_writes_the_same_files(dataset, tmp_path):
    def start(output, finished_shards):
        return start_python(["-c", HANGING, str(tmp_path / "dataset"), str(tmp_path / output), str(finished_shards)])

    process, record = start("out", 3), tmp_path / "out.partial" / "_unfinished"
    deadline = time.monotonic() + 900
    while not (record.exists() and len(json.loads(record.read_text())["finished"]) >= 6):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=900)
    finished = json.loads(record.read_text())["finished"]
    assert len(finished) == 6  # two files per shard
    written = {name: os.stat(tmp_path / "out.partial" / name).st_mtime_ns for name in finished}
    assert not (tmp_path / "out").exists()

    for process in (start("out", NUM_SHARDS), start("whole", NUM_SHARDS)):
        assert process.wait(timeout=900) == 0
    assert {name: os.stat(tmp_path / "out" / name).st_mtime_ns for name in finished} == written
    files, expected = contents(tmp_path / "out"), contents(tmp_path / "whole")
    assert len(files) == 41
    for name in set(expected) - {"recommendations.json"}:
        assert files[name] == expected[name]


BLEND = BlendRecord(
    parts=(".",),
    steps=(6,),
    weights=dict.fromkeys(RANKINGS, BlendWeights(parts=(1.0,), trend=1.0, half_life_days=7.0)),
    validation={},
)


def test_a_setting_that_only_changes_the_ranking_changes_the_checksum_of_the_model(monkeypatch):
    monkeypatch.setattr(job, "weights_checksum", lambda workdir, step: f"of {workdir} at {step}")
    runs = [
        TrainedRun(
            SimpleNamespace(config=make_config("nn", f"model.return_bonus={bonus}")), None, None, 6, {"run": 6}, blend
        )
        for bonus, blend in ((3.0, None), (3.0, None), (0.0, None), (3.0, BLEND))
    ]
    one, same, other, blended = (job._model_checksum(run) for run in runs)
    assert blended not in (one, other)
    assert one == same
    assert one != other
