"""Tests the order, the concurrency and the failures of `prepare`'s graphs."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from common import storage
from contract.layout import DatasetLayout
from contract.manifest import VocabularyInfo
from contract.schema import Vocabulary
from preprocessing import histograms
from preprocessing.beam import graphs
from preprocessing.beam.job import Job
from preprocessing.beam.progress import Phase, track_progress
from preprocessing.config import PrepareConfig
from preprocessing.histograms import count_floats
from preprocessing.pipeline import prepare
from preprocessing.transform import TransformConfig, load_transform
from preprocessing.workspace import Workspace
from tests.preprocessing.shop import plain_events, write_events, write_lines

pytestmark = pytest.mark.integration

SHARDS = 6000
"""Number of shards that would take five minutes, far longer than the time between an error and its handling."""


@pytest.mark.parametrize(("arguments", "is_concurrent"), [([], True), (["--runner=FlinkRunner"], False)])
def test_graphs_run_concurrently_only_in_this_process(tmp_path, arguments, is_concurrent):
    """On Flink, Beam starts a job server, which installs signal handlers, and only the main thread may do so."""
    options = PipelineOptions(arguments)
    job = Job(PrepareConfig(events=""), DatasetLayout(str(tmp_path)), Workspace(str(tmp_path)), options)
    with job.run_concurrently(threading.current_thread) as future:
        assert (future.result() is not threading.current_thread()) == is_concurrent


def test_half_written_files_of_a_killed_worker_are_not_published(tmp_path, monkeypatch):
    """Beam repeats the work on another worker, which writes the whole file next to the half-written one."""
    write_whole_catalogue = graphs.write_catalogue

    def write_catalogue(job: Job, num_partitions: int) -> None:
        write_whole_catalogue(job, num_partitions)
        for path in (job.layout.catalogue, job.layout.timelines):
            Path(path, "left.parquet.partial-0123456789abcdef0123456789abcdef").write_bytes(b"half of")

    monkeypatch.setattr(graphs, "write_catalogue", write_catalogue)
    prepare(PrepareConfig(events=write_events(tmp_path / "e.csv", *plain_events(50))), str(tmp_path / "dataset"))
    assert (tmp_path / "dataset" / "manifest.json").exists()
    assert not list(tmp_path.rglob("*.partial-*"))


def test_an_error_does_not_wait_for_the_rest_of_a_concurrent_graph(tmp_path):
    job = Job(PrepareConfig(events=""), DatasetLayout(str(tmp_path)), Workspace(str(tmp_path)), PipelineOptions([]))
    has_started, num_written = threading.Event(), 0

    def write_shards() -> None:
        nonlocal num_written
        with track_progress(Phase("shards", SHARDS), is_shown=False) as progress:
            has_started.set()
            for _ in range(SHARDS):
                time.sleep(0.05)
                progress.add_one("a shard")
                num_written += 1

    with pytest.raises(SystemExit), job.run_concurrently(write_shards):
        assert has_started.wait(300)
        raise SystemExit(143)
    assert num_written < SHARDS


def test_an_invalid_category_tree_is_an_error_before_the_first_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "read_events", lambda *_: pytest.fail("a graph was run"))
    config = PrepareConfig(
        events=write_events(tmp_path / "events.csv", *plain_events(9)),
        category_tree=write_lines(tmp_path / "tree.csv", "categoryid,parentid", "1,", "bad"),
    )
    with pytest.raises(ValueError, match=r"1 of 2 category tree rows are invalid"):
        prepare(config, str(tmp_path / "dataset"))


def test_shards_that_cannot_be_written_are_an_error_before_the_transform_is_fitted(tmp_path, monkeypatch):
    def write_timelines(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(graphs, "write_timelines", write_timelines)
    monkeypatch.setattr(graphs, "fit_transform", lambda *_: pytest.fail("a graph was run"))
    with pytest.raises(OSError, match="No space left"):
        prepare(PrepareConfig(events=write_events(tmp_path / "e.csv", *plain_events(50))), str(tmp_path / "dataset"))


def test_the_transform_is_fitted_to_bounded_samples_and_reads_only_vocabularies(tmp_path, monkeypatch):
    monkeypatch.setattr(histograms, "MAX_FLOATS", 512)
    layout = DatasetLayout(str(tmp_path))
    for name in Vocabulary:
        storage.write_bytes(layout.vocabulary(name), b"a\nb\n")
    read, batches, read_bytes, make_batch = [], [], storage.read_bytes, graphs.transform.make_analysis_batch
    monkeypatch.setattr(storage, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    monkeypatch.setattr(
        graphs.transform, "make_analysis_batch", lambda *values: batches.append(values) or make_batch(*values)
    )
    job = Job(PrepareConfig(events=""), layout, Workspace(str(tmp_path)), PipelineOptions([]))
    vocabularies = {name: VocabularyInfo(size=2, oov_buckets=1) for name in Vocabulary}
    config = TransformConfig(vocabularies, ("view",), has_prices=True, has_gaps=True, num_buckets=4)
    gaps, prices = np.arange(1, 1001, dtype=np.float32), np.array([1, 3], np.float32)
    graphs.fit_transform(job, count_floats(gaps), count_floats(prices), config)

    assert [len(values) for values in batches[0]] == [512, 2]
    of_dataset = {path for path in read if path.startswith(str(tmp_path))}
    assert of_dataset == {layout.vocabulary(name) for name in (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES)}
    outputs = load_transform(layout.transform).transform_fn(
        {
            name: tf.sparse.from_dense(tf.constant(values))
            for name, values in {
                **{name: [["a"]] for name in ("visitor_id", "item_id", "category_path", "property_values")},
                "event": [["view"]],
                "price": [[1.0, 3.0]],
                "gap_seconds": [[1.0, 230.0, 260.0, 480.0, 510.0, 730.0, 760.0, 1e6]],
            }.items()
        }
    )
    assert outputs["gap_bucket"].values.numpy().tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    # the standardised logarithms of 1 + 1 and 1 + 3
    np.testing.assert_allclose(outputs["price_scaled"].values, [-1, 1], rtol=1e-5)
