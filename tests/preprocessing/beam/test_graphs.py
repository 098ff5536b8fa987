"""The order of `prepare`'s graphs: what runs beside what, what is told before the next, what failures leave."""

import threading
import time
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from contract.layout import DatasetLayout
from preprocessing.beam import graphs
from preprocessing.beam.graphs import Job
from preprocessing.beam.progress import Phase, watch
from preprocessing.config import PrepareConfig
from preprocessing.pipeline import prepare
from preprocessing.workspace import Workspace
from tests.preprocessing.shop import plain_events, write_events, write_lines

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("arguments", "is_beside"), [([], True), (["--runner=FlinkRunner"], False)])
def test_only_in_this_process_does_a_graph_run_beside_another(tmp_path, arguments, is_beside):
    """Beam starts Flink's job server, which asks for signals: a thread may not."""
    options = PipelineOptions(arguments)
    job = Job(PrepareConfig(events=""), DatasetLayout(str(tmp_path)), Workspace(str(tmp_path)), options)
    with job.run_concurrently(threading.current_thread) as making:
        assert (making.result() is not threading.current_thread()) == is_beside


def test_what_a_killed_worker_left_half_written_is_not_published(tmp_path, monkeypatch):
    """Beam has given its work to another worker, which wrote the whole file beside it."""
    whole = graphs.write_catalogue

    def write_catalogue(job: Job, num_partitions: int) -> None:
        whole(job, num_partitions)
        for path in (job.layout.catalogue, job.layout.timelines):
            Path(path, "left.parquet.partial-0123456789abcdef0123456789abcdef").write_bytes(b"half of")

    monkeypatch.setattr(graphs, "write_catalogue", write_catalogue)
    prepare(PrepareConfig(events=write_events(tmp_path / "e.csv", *plain_events(50))), str(tmp_path / "dataset"))
    assert (tmp_path / "dataset" / "manifest.json").exists()
    assert not list(tmp_path.rglob("*.partial-*"))


def test_an_error_does_not_wait_for_all_of_the_graph_beside_it(tmp_path):
    job = Job(PrepareConfig(events=""), DatasetLayout(str(tmp_path)), Workspace(str(tmp_path)), PipelineOptions([]))
    begun, num_made = threading.Event(), 0

    def make() -> None:
        nonlocal num_made
        with watch(Phase("shards", 100), is_shown=False) as tell:
            begun.set()
            for _ in range(100):
                time.sleep(0.05)
                tell.one("a shard")
                num_made += 1

    with pytest.raises(SystemExit), job.run_concurrently(make):
        begun.wait(10)
        raise SystemExit(143)
    assert num_made < 100


def test_a_category_tree_is_refused_before_the_first_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "read_events", lambda *_: pytest.fail("a graph was run"))
    config = PrepareConfig(
        events=write_events(tmp_path / "events.csv", *plain_events(9)),
        category_tree=write_lines(tmp_path / "tree.csv", "categoryid,parentid", "1,", "bad"),
    )
    with pytest.raises(ValueError, match=r"1 of 2 category tree rows are bad"):
        prepare(config, str(tmp_path / "dataset"))


def test_shards_that_cannot_be_written_are_told_before_the_transform_is_fitted(tmp_path, monkeypatch):
    def write_timelines(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(graphs, "write_timelines", write_timelines)
    monkeypatch.setattr(graphs, "fit_transform", lambda *_: pytest.fail("a graph was run"))
    with pytest.raises(OSError, match="No space left"):
        prepare(PrepareConfig(events=write_events(tmp_path / "e.csv", *plain_events(50))), str(tmp_path / "dataset"))
