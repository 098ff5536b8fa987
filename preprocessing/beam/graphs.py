"""Beam graphs of `prepare`. Each graph writes files to the workspace and returns its results.

The graphs run in sequence; only `write_timelines` may run concurrently with the graphs of the catalogue. Because of the
sequence, a graph can use the results of earlier graphs, such as vocabularies, and `prepare` can refuse an invalid input
between two graphs.

A part is a section of an input file. A partition contains all rows of some visitors or items; a hash of the id selects
the partition. A reject is an invalid row. Cuts are the times at which validation and test start. A gap is the time
between two consecutive events of a visitor.
"""

import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow_transform.beam as tft_beam

from common import storage
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.manifest import VocabularyInfo
from contract.schema import Vocabulary
from preprocessing import catalogue, transform, vocabularies
from preprocessing.beam import stages
from preprocessing.beam.job import Job
from preprocessing.beam.progress import Phase, ProgressCounter
from preprocessing.beam.results import merge_result
from preprocessing.beam.stages import ALL_ITEMS, BYTES_READ, CATEGORY_EVENTS, PRICES, REJECTS, SUMMARIES, TRAINED_ITEMS
from preprocessing.columns import EncodedTable
from preprocessing.events import EventMapping, keeps_repeats
from preprocessing.histograms import Histogram, merge_floats, sample_floats
from preprocessing.item_table import ItemTableMapping
from preprocessing.sources.source import Part
from preprocessing.splits import Cuts
from preprocessing.statistics import summaries

# neither the fit nor the catalogue uses these ids, and their tables take hundreds of bytes per id in every process that
# loads the graph; therefore the fit gets placeholders, which `complete_transform` replaces
_COMPLETED_LATER = (Vocabulary.VISITORS, Vocabulary.ITEMS)
_PLACEHOLDER = b"-\n"


class IdCounts(NamedTuple):
    """Statistics of all events, and event counts by item."""

    events: summaries.EventStatistics
    """Statistics of all events."""
    trained_items: EncodedTable
    """Number of training events of each item, from `vocabularies.count_items`."""
    all_items: EncodedTable
    """Number of events of each item in each split, from `popularity.count_items_by_split`."""


class PropertyCounts(NamedTuple):
    """Counts of input rows and of items per property, and the items that have properties."""

    reading: summaries.ReadingSummary
    """Counts of rows and rejects."""
    properties: EncodedTable
    """Number of items that have each property, in the columns id and count."""
    items: EncodedTable
    """One row per item that has properties, from `vocabularies.count_no_events`. The event counts are 0, because this
    graph reads no events."""


class CatalogueCounts(NamedTuple):
    """Numbers of items by category and property value, training events by category, and a histogram of prices."""

    description: dict[str, int]
    """Counts of items, such as those with a price; the sum of `catalogue.describe_partition` over all partitions."""
    categories: EncodedTable
    """Number of items in each category, in the columns id and count."""
    property_values: EncodedTable
    """Number of items that have each property value, in the columns id and count."""
    category_events: EncodedTable
    """Number of training events in each category, in the columns id and count."""
    prices: Histogram
    """Histogram of the prices of the items with training events."""


def read_events(
    job: Job, parts: Sequence[Part], num_partitions: int, mapping: EventMapping
) -> summaries.ReadingSummary:
    """Reads the event log and writes cleaned timelines, one file per visitor partition.

    Also writes the invalid rows. Returns the counts of rows, rejects, duplicates and robots.
    """
    assemble = stages.AssembleTimelines(job.work, job.config.max_events_per_day, keep_repeats=keeps_repeats(job.config))
    with job.pipeline(_reading_phase("events", parts), Phase("timelines", num_partitions)) as (pipeline, progress):
        read = _read(job, pipeline, parts, stages.RouteEvents(job.work, num_partitions, mapping), progress)
        cleaned = read.pieces | "GroupByVisitor" >> beam.GroupByKey() | "Assemble" >> beam.Map(assemble)
        _ = cleaned | "Progress" >> beam.Map(progress.add_one)
        reading = merge_result(job.work, "reading", read[SUMMARIES], summaries.merge_readings)
        # not flattened into one collection: the summaries would wait for the merge, each with the times of its events
        cleaning = merge_result(job.work, "cleaning", cleaned, summaries.merge_readings)
    storage.remove(job.work.chunks)
    return summaries.merge_readings([reading.read(), cleaning.read()])


def count_ids(job: Job, num_partitions: int, cuts: Cuts | None) -> IdCounts:
    """Counts events by visitor and by item, and computes the statistics of all events.

    Writes the counts by visitor to one file per partition. `cuts` is None unless the split is by time.
    """
    count = stages.CountIds(job.work, cuts, job.config.split, len(job.config.kinds.names))
    with job.pipeline(Phase("counts", num_partitions)) as (pipeline, progress):
        counted = _partitions(pipeline, num_partitions) | beam.ParDo(count).with_outputs(
            TRAINED_ITEMS, ALL_ITEMS, main="statistics"
        )
        _ = counted.statistics | "Progress" >> beam.Map(progress.add_one)
        events = merge_result(job.work, "events", counted.statistics, summaries.merge_events)
        trained_items = merge_result(job.work, TRAINED_ITEMS, counted[TRAINED_ITEMS], vocabularies.merge_counts)
        all_items = merge_result(job.work, ALL_ITEMS, counted[ALL_ITEMS], vocabularies.merge_counts)
    return IdCounts(events.read(), trained_items.read(), all_items.read())


def read_properties(
    job: Job, parts: Sequence[Part], num_partitions: int, until_ms: float, table: ItemTableMapping | None = None
) -> PropertyCounts:
    """Reads the item properties or the item table.

    Writes the rejects, and one file per item partition with the latest property values.

    Args:
      until_ms: milliseconds since 1970; item properties at or after this time are ignored. An item table has no times.
      table: how to read the item table; None: `parts` are item properties.
    """
    phases = _reading_phase("item properties", parts), Phase("properties by item", num_partitions)
    with job.pipeline(*phases) as (pipeline, progress):
        read = _read(job, pipeline, parts, stages.RouteProperties(job.work, num_partitions, until_ms, table), progress)
        merge = beam.FlatMap(stages.MergeProperties(job.work, len(job.config.kinds.names))).with_outputs(
            SUMMARIES, ALL_ITEMS, main="counts"
        )
        merged = read.pieces | "GroupByItem" >> beam.GroupByKey() | "Merge" >> merge
        _ = merged.counts | "Progress" >> beam.Map(progress.add_one)
        readings = (read[SUMMARIES], merged[SUMMARIES]) | beam.Flatten()
        reading = merge_result(job.work, "property-reading", readings, summaries.merge_readings)
        properties = merge_result(job.work, "properties", merged.counts, vocabularies.merge_counts)
        items = merge_result(job.work, "property-items", merged[ALL_ITEMS], vocabularies.merge_counts)
    storage.remove(job.work.chunks)
    return PropertyCounts(reading.read(), properties.read(), items.read())


def write_timelines(
    job: Job, num_partitions: int, cuts: Cuts | None, visitors: VocabularyInfo, items: VocabularyInfo
) -> list[stages.WrittenShard]:
    """Writes one timeline shard per split and visitor partition."""
    write = stages.WriteTimelines(job.layout, job.work, cuts, job.config, num_partitions, visitors, items)
    with job.pipeline(Phase("timeline shards", num_partitions)) as (pipeline, progress):
        written = _partitions(pipeline, num_partitions) | beam.Map(write)
        _ = written | "Progress" >> beam.Map(progress.add_one)
        shards = merge_result(job.work, "shards", written, _concatenate)
    return shards.read()


def assemble_catalogue(
    job: Job, num_partitions: int, has_properties: bool, frequent: tuple[str, ...], tree: catalogue.CategoryTree
) -> CatalogueCounts:
    """Assembles catalogue rows and writes one file per item partition. Categories and property values are texts.

    `frequent`: names of the properties to keep, in addition to those with a role, such as the price.
    """
    assemble = stages.AssembleItems(job.work, has_properties, job.config.properties, frequent, tree)
    tags = (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES, CATEGORY_EVENTS)
    with job.pipeline(Phase("items", num_partitions)) as (pipeline, progress):
        rows = _partitions(pipeline, num_partitions) | beam.ParDo(assemble).with_outputs(
            *tags, PRICES, main="descriptions"
        )
        _ = rows.descriptions | "Progress" >> beam.Map(progress.add_one)
        description = merge_result(job.work, "catalogue", rows.descriptions, catalogue.merge_descriptions)
        categories, values, events = (merge_result(job.work, tag, rows[tag], vocabularies.merge_counts) for tag in tags)
        prices = merge_result(job.work, PRICES, rows[PRICES], merge_floats)
    return CatalogueCounts(description.read(), categories.read(), values.read(), events.read(), prices.read())


def fit_transform(job: Job, gaps: Histogram, prices: Histogram, config: transform.TransformConfig) -> None:
    """Fits the TF-Transform graph to samples of gaps and prices, with placeholders as visitor and item vocabularies."""
    batch = transform.make_analysis_batch(sample_floats(gaps), sample_floats(prices))
    with tempfile.TemporaryDirectory() as scratch:
        local = DatasetLayout(scratch)
        for name in Vocabulary:
            content = _PLACEHOLDER if name in _COMPLETED_LATER else storage.read_bytes(job.layout.vocabulary(name))
            storage.write_bytes(local.vocabulary(name), content)
        analyze = tft_beam.AnalyzeDataset(transform.make_preprocessing_fn(config, local.vocabulary))
        # remote workers may not be able to open TF-Transform's files (decision 9)
        with (
            job.run_locally().pipeline(Phase("transform", 1)) as (pipeline, progress),
            tft_beam.Context(f"{scratch}/tft"),
        ):
            rows = pipeline | beam.Create([batch])
            _ = rows | "Progress" >> beam.Map(progress.add_one)
            _ = (rows, transform.tensor_adapter_config()) | analyze | tft_beam.WriteTransformFn(local.transform)
        storage.upload_all(local.transform, storage.list_files(local.transform), job.layout.transform)


def complete_transform(job: Job) -> None:
    """Replaces the placeholders in the fitted TF-Transform graph by the visitor and item vocabularies."""
    for name in _COMPLETED_LATER:
        content = storage.read_bytes(job.layout.vocabulary(name))
        storage.write_bytes(join(job.layout.transform, transform.asset_path(name)), content)


def write_catalogue(job: Job, num_partitions: int) -> None:
    """Applies the TF-Transform graph and writes one catalogue shard per item partition."""
    write = stages.WriteCatalogue(job.layout, job.work, num_partitions)
    with job.pipeline(Phase("catalogue shards", num_partitions)) as (pipeline, progress):
        _ = _partitions(pipeline, num_partitions) | beam.ParDo(write) | "Progress" >> beam.Map(progress.add_one)


def _reading_phase(title: str, parts: Sequence[Part]) -> Phase:
    return Phase(title, sum(part.size for part in parts), "B")


def _read(job: Job, pipeline: beam.Pipeline, parts: Sequence[Part], route: beam.DoFn, progress: ProgressCounter) -> Any:
    """Reads `parts` with `route` (RouteEvents or RouteProperties). Writes invalid rows; returns the other outputs."""
    read = (
        pipeline
        | "Parts" >> beam.Create(parts)
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(route).with_outputs(REJECTS, SUMMARIES, BYTES_READ, main="pieces")
    )
    _ = read[BYTES_READ] | "ReadProgress" >> beam.Map(progress.add)
    write = stages.WriteRejects(job.layout.rejects)
    _ = read[REJECTS] | "GroupByFile" >> beam.GroupByKey() | "WriteRejects" >> beam.Map(write)
    return read


def _partitions(pipeline: beam.Pipeline, count: int) -> beam.PCollection:
    return pipeline | "Partitions" >> beam.Create(range(count)) | "Spread" >> beam.Reshuffle()


def _concatenate(parts: Iterable[list[stages.WrittenShard]]) -> list[stages.WrittenShard]:
    return [entry for part in parts for entry in part]
