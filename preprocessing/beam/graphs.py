"""The Beam graphs of `prepare`; each leaves files, and its single result, in the workspace.

What one must know before the next may start (cuts, vocabularies, the TF-Transform graph) is thereby known to the
program that starts them: it can refuse an input in plain words before anything is written for good.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import apache_beam as beam
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from common import storage
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.schema import Vocabulary
from preprocessing import catalogue, transform, vocabularies
from preprocessing.beam import stages
from preprocessing.beam.progress import Phase, Tell, stop_pipelines, watch
from preprocessing.beam.stages import ALL_ITEMS, CATEGORY_VIEWS, ITEMS, READ, REJECTS, SUMMARIES
from preprocessing.config import PrepareConfig
from preprocessing.sources.csv_files import ByteRange
from preprocessing.statistics import summaries
from preprocessing.workspace import Workspace, read_result, write_result

Result = TypeVar("Result")
Cuts = tuple[int, int] | None

# no column that is analyzed or in the catalogue needs them, and a table of either takes hundreds of bytes an id in
# every process that loads the graph: until the catalogue is written, a placeholder stands for their ids
_COMPLETED = (Vocabulary.VISITORS, Vocabulary.ITEMS)
_PLACEHOLDER = b"-\n"


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from command-line arguments.

    Raises:
      ValueError: an argument that is neither a flag of Beam's nor a flag's value, or a value that Beam refuses. With a
        job server any flag may be one of the server's own, which Beam asks it about.
    """
    options = PipelineOptions(list(arguments))
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            unknown = options.get_all_options(retain_unknown_options=True).keys() - options.get_all_options().keys()
    except SystemExit:
        reason = complaint.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        raise ValueError(f"Beam refuses {' '.join(arguments)}: {reason}") from None
    before = ("", *arguments)
    strange = [word for last, word in zip(before, arguments, strict=False) if "-" not in (last[:1], word[:1])]
    if is_in_process(options) or _runner(options) == "dataflow":
        strange += [word for word in arguments if word.lstrip("-").partition("=")[0].replace("-", "_") in unknown]
    if strange:
        raise ValueError(
            f"unrecognized arguments: {', '.join(strange)}; neither prepare nor Beam knows them (quote a glob)"
        )
    return options


def is_in_process(options: PipelineOptions) -> bool:
    """Beam runs in this process, not on workers elsewhere."""
    return _runner(options) in ("direct", "fnapi", "switchingdirect")


def _runner(options: PipelineOptions) -> str:
    runner = options.view_as(StandardOptions).runner or "direct"
    return runner.lower().removesuffix("runner")


@dataclass(frozen=True)
class Job:
    """One run of `prepare`: its settings, where its files lie, and how Beam runs."""

    config: PrepareConfig
    layout: DatasetLayout
    work: Workspace
    options: PipelineOptions

    def result(self, name: str) -> Any:
        """What a graph left under this name."""
        return read_result(self.work.result(name))

    def run_locally(self) -> "Job":
        """The same, with pipelines that run in this process, wherever the others do."""
        return self if is_in_process(self.options) else replace(self, options=PipelineOptions([]))

    @contextmanager
    def pipeline(self, *phases: Phase) -> Iterator[tuple[beam.Pipeline, Tell]]:
        """A pipeline that has run to its end when the context closes, and what its elements tell of its phases.

        The in-process runner stands for Beam's DirectRunner, which would first look for a download.
        """
        runner = FnApiRunner() if is_in_process(self.options) else None
        processes = self.options.view_as(DirectOptions).direct_running_mode == "multi_processing"
        with (
            watch(*phases, is_shown=runner is not None and not processes) as tell,
            beam.Pipeline(runner=runner, options=self.options) as pipeline,
        ):
            yield pipeline, tell

    @contextmanager
    def run_concurrently(self, make: Callable[[], Result]) -> Iterator[Future[Result]]:
        """What `make`, which runs a graph, gives: where that runs in this process, in a thread beside the context.

        Elsewhere it is made before the context: each graph has all workers to itself, and Beam starts a job server in
        no thread but the main one, nor makes two pipelines at once: while it copies the options of one it takes their
        runner away.
        """
        if is_in_process(self.options):
            with ThreadPoolExecutor(1) as thread:
                made = thread.submit(make)
                try:
                    yield made
                except BaseException:
                    stop_pipelines()  # after an error or SIGTERM nobody waits for the rest of it
                    raise
        else:
            done: Future[Result] = Future()
            done.set_result(make())
            yield done


def read_events(job: Job, ranges: Sequence[ByteRange], num_partitions: int) -> summaries.ReadingSummary:
    """Events to clean timelines by visitor partition, bad rows to the rejects."""
    assemble = stages.AssembleTimelines(job.work, job.config.max_events_per_day)
    with job.pipeline(_reading("events", ranges), Phase("timelines", num_partitions)) as (pipeline, tell):
        read = _read(job, pipeline, ranges, stages.RouteEvents(job.work, num_partitions), tell)
        cleaned = read.pieces | "GroupByVisitor" >> beam.GroupByKey() | "Assemble" >> beam.Map(assemble)
        _ = cleaned | "Tell" >> beam.Map(tell.one)
        _keep(job, "reading", read[SUMMARIES], summaries.merge_readings)
        # by themselves: in one collection with the others they would wait to be merged, with the times of all events
        _keep(job, "cleaning", cleaned, summaries.merge_readings)
    storage.remove(job.work.sent)
    return summaries.merge_readings([job.result("reading"), job.result("cleaning")])


def count_ids(job: Job, num_partitions: int, cuts: Cuts) -> summaries.EventStatistics:
    """Counts of visitors and items, in training and in all, and the statistics of all events."""
    count = stages.CountIds(job.work, cuts, job.config.split)
    with job.pipeline(Phase("counts", num_partitions)) as (pipeline, tell):
        counted = _partitions(pipeline, num_partitions) | beam.ParDo(count).with_outputs(
            ITEMS, ALL_ITEMS, main="statistics"
        )
        _ = counted.statistics | "Tell" >> beam.Map(tell.one)
        _keep(job, "events", counted.statistics, summaries.merge_events)
        _keep(job, ITEMS, counted[ITEMS], vocabularies.merge_counts)
        _keep(job, ALL_ITEMS, counted[ALL_ITEMS], vocabularies.merge_counts)
    return job.result("events")


def write_timelines(job: Job, num_partitions: int, write: stages.WriteTimelines) -> list[stages.WrittenShard]:
    """The timeline shards of every split."""
    with job.pipeline(Phase("timeline shards", num_partitions)) as (pipeline, tell):
        written = _partitions(pipeline, num_partitions) | beam.Map(write)
        _ = written | "Tell" >> beam.Map(tell.one)
        _keep(job, "shards", written, _concatenate)
    return job.result("shards")


def read_properties(
    job: Job, ranges: Sequence[ByteRange], num_partitions: int, until_ms: float
) -> summaries.ReadingSummary:
    """Item properties as of `until_ms` by item partition, bad rows to the rejects; and the items that they tell of."""
    phases = _reading("item properties", ranges), Phase("properties by item", num_partitions)
    with job.pipeline(*phases) as (pipeline, tell):
        read = _read(job, pipeline, ranges, stages.RouteProperties(job.work, num_partitions, until_ms), tell)
        merge = beam.FlatMap(stages.MergeProperties(job.work)).with_outputs(SUMMARIES, ALL_ITEMS, main="counts")
        merged = read.pieces | "GroupByItem" >> beam.GroupByKey() | "Merge" >> merge
        _ = merged.counts | "Tell" >> beam.Map(tell.one)
        readings = (read[SUMMARIES], merged[SUMMARIES]) | beam.Flatten()
        _keep(job, "properties", merged.counts, vocabularies.merge_counts)
        _keep(job, "property-items", merged[ALL_ITEMS], vocabularies.merge_counts)
        _keep(job, "property-reading", readings, summaries.merge_readings)
    storage.remove(job.work.sent)
    return job.result("property-reading")


def assemble_catalogue(
    job: Job, num_partitions: int, has_properties: bool, frequent: tuple[str, ...], tree: catalogue.CategoryTree
) -> dict[str, int]:
    """One row an item, as text, by item partition; and the counts of categories, their views and property values."""
    assemble = stages.AssembleItems(job.work, has_properties, job.config.properties, frequent, tree)
    counted = (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES, CATEGORY_VIEWS)
    with job.pipeline(Phase("items", num_partitions)) as (pipeline, tell):
        rows = _partitions(pipeline, num_partitions) | beam.ParDo(assemble).with_outputs(*counted, main="descriptions")
        _ = rows.descriptions | "Tell" >> beam.Map(tell.one)
        for name in counted:
            _keep(job, name, rows[name], vocabularies.merge_counts)
        _keep(job, "catalogue", rows.descriptions, catalogue.merge_descriptions)
    return job.result("catalogue")


def fit_transform(
    job: Job, num_partitions: int, num_item_partitions: int, cuts: Cuts, config: transform.TransformConfig
) -> None:
    """The TF-Transform graph: vocabularies applied, prices and gaps analyzed. `complete_transform` must follow.

    Always in this process (decision 9): TF-Transform's files must lie where TensorFlow opens them, and all workers.
    """
    gaps = stages.GapBatch(job.work, cuts, job.config.split)
    prices = stages.PriceBatch(job.work)
    phase = Phase("transform", num_partitions + 1)  # prices are a batch of their own
    with tempfile.TemporaryDirectory() as scratch:
        made = DatasetLayout(scratch)
        for name in Vocabulary:
            content = _PLACEHOLDER if name in _COMPLETED else storage.read_bytes(job.layout.vocabulary(name))
            storage.write_bytes(made.vocabulary(name), content)
        analyze = tft_beam.AnalyzeDataset(transform.make_preprocessing_fn(config, made.vocabulary))
        with job.run_locally().pipeline(phase) as (pipeline, tell), tft_beam.Context(f"{scratch}/tft"):
            rows = (
                _partitions(pipeline, num_partitions) | "Gaps" >> beam.Map(gaps),
                pipeline | "AllItems" >> beam.Create([num_item_partitions]) | "Prices" >> beam.Map(prices),
            ) | beam.Flatten()
            _ = rows | "Tell" >> beam.Map(tell.one)
            _ = (rows, transform.tensor_adapter_config()) | analyze | tft_beam.WriteTransformFn(made.transform)
        storage.upload_all(made.transform, storage.list_files(made.transform), job.layout.transform)


def complete_transform(job: Job) -> None:
    """Gives the graph the vocabularies that it was fitted without."""
    for name in _COMPLETED:
        content = storage.read_bytes(job.layout.vocabulary(name))
        storage.write_bytes(join(job.layout.transform, transform.asset(name)), content)


def write_catalogue(job: Job, num_partitions: int) -> None:
    """Catalogue rows through the TF-Transform graph into Parquet shards."""
    write = stages.WriteCatalogue(job.layout, job.work, num_partitions)
    with job.pipeline(Phase("catalogue shards", num_partitions)) as (pipeline, tell):
        _ = _partitions(pipeline, num_partitions) | beam.ParDo(write) | "Tell" >> beam.Map(tell.one)


def _reading(title: str, ranges: Sequence[ByteRange]) -> Phase:
    return Phase(title, sum(source.size for source in ranges), "B")


def _read(job: Job, pipeline: beam.Pipeline, ranges: Sequence[ByteRange], route: beam.DoFn, tell: Tell) -> Any:
    """Outputs `pieces` and SUMMARIES; the rejects are written."""
    read = (
        pipeline
        | "Ranges" >> beam.Create(ranges)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(route).with_outputs(REJECTS, SUMMARIES, READ, main="pieces")
    )
    _ = read[READ] | "TellRead" >> beam.Map(tell.amount)
    write = stages.WriteRejects(job.layout.rejects)
    _ = read[REJECTS] | "GroupByFile" >> beam.GroupByKey() | "WriteRejects" >> beam.Map(write)
    return read


def _partitions(pipeline: beam.Pipeline, count: int) -> beam.PCollection:
    return pipeline | "Partitions" >> beam.Create(range(count)) | "Spread" >> beam.Reshuffle()


def _keep(job: Job, name: str, parts: beam.PCollection, merge: Callable[[Iterable[Any]], Any]) -> None:
    """Merges a collection into the job's result of this name."""
    # what stands where the collection is empty: Beam's own default would cost five stages more
    write_result(job.work.result(name), merge(()))
    merged = parts | f"Merge {name}" >> beam.CombineGlobally(stages.Merge(merge)).without_defaults()
    _ = merged | f"Keep {name}" >> beam.Map(stages.KeepResult(job.work.result(name)))


def _concatenate(parts: Iterable[list]) -> list:
    return [entry for part in parts for entry in part]
