"""The Beam transforms of the pipelines: they fetch columns, call the pure functions, and write what these give.

Elements are byte ranges, partition numbers, where their rows lie, and summaries; never rows.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from common import storage
from common.storage.paths import join
from contract.catalogue import CATALOGUE_SCHEMA, encode_catalogue, in_order
from contract.layout import DatasetLayout
from contract.manifest import SplitInfo, VocabularyInfo
from contract.schema import Split, SplitMethod, Vocabulary
from contract.shards import compression_of
from contract.timelines import TimelineRows, encode_blocks
from preprocessing import catalogue, timelines, transform, vocabularies
from preprocessing.beam.shuffle import Piece, receive_rows, send_rows
from preprocessing.columns import encode_columns
from preprocessing.config import PrepareConfig, PropertyConfig, SplitConfig
from preprocessing.sources.csv_files import ByteRange, Rejects, keep_first, read_chunks
from preprocessing.splits import SPLITS, TRAIN
from preprocessing.statistics import popularity, summaries
from preprocessing.statistics.correlation import Moments, count_moments
from preprocessing.workspace import Workspace, read_table, write_result, write_table

REJECTS, SUMMARIES, READ, ITEMS, ALL_ITEMS = "rejects", "summaries", "read", "items", "all-items"
CATEGORY_VIEWS = "category-views"

_PARTS_AT_ONCE = 8


class RouteEvents(beam.DoFn):
    """ByteRange to (partition, Piece) by visitor; bad rows, counts and bytes read go to their own outputs."""

    def __init__(self, work: Workspace, num_partitions: int) -> None:
        self._work, self._num_partitions = work, num_partitions

    def process(self, source: ByteRange) -> Iterator[Any]:
        for chunk in read_chunks(source):
            table, rejects, num_blank = timelines.parse_events(chunk)
            summary = summaries.summarize_reading(len(table), num_blank, rejects)
            place = (source.ordinal, chunk.position)
            path = self._work.chunk("events", place)
            yield from send_rows(table, "visitor", self._num_partitions, place, path)
            yield from _account("events", source, summary, rejects)
        yield beam.pvalue.TaggedOutput(READ, source.size)


class RouteProperties(beam.DoFn):
    """ByteRange to (partition, Piece) by item, of what was known before `until_ms`; bad rows as above."""

    def __init__(self, work: Workspace, num_partitions: int, until_ms: float) -> None:
        self._work, self._num_partitions, self._until_ms = work, num_partitions, until_ms

    def process(self, source: ByteRange) -> Iterator[Any]:
        for chunk in read_chunks(source):
            table, summary, rejects = catalogue.parse_properties(chunk, self._until_ms)
            place = (source.ordinal, chunk.position)
            path = self._work.chunk("item-properties", place)
            yield from send_rows(table, "item", self._num_partitions, place, path)
            yield from _account("item-properties", source, summary, rejects)
        yield beam.pvalue.TaggedOutput(READ, source.size)


@dataclass(frozen=True)
class AssembleTimelines:
    """(partition, pieces) to a file of clean timelines; gives the summary of what remains."""

    work: Workspace
    max_events_per_day: int

    def __call__(self, keyed: tuple[int, Iterable[Piece]]) -> summaries.ReadingSummary:
        partition, pieces = keyed
        rows, cleaning = timelines.assemble_timelines(receive_rows(pieces), self.max_events_per_day)
        storage.write_bytes(self.work.timelines(partition), timelines.encode_timelines(rows))
        return summaries.summarize_cleaning(partition, rows, cleaning)


class CountIds(beam.DoFn):
    """A partition's training counts by visitor (to a file) and by item, of training and of all rows; its statistics."""

    def __init__(self, work: Workspace, cuts: tuple[int, int] | None, split: SplitConfig) -> None:
        self._work, self._cuts, self._split = work, cuts, split

    def process(self, partition: int) -> Iterator[Any]:
        everyone = _read_timelines(self._work, partition)
        rows, splits = timelines.split_timelines(everyone, self._cuts, self._split)
        is_training = splits == TRAIN
        write_table(self._work.visitor_counts(partition), vocabularies.count_visitors(rows, is_training))
        yield beam.pvalue.TaggedOutput(ITEMS, encode_columns(vocabularies.count_items(rows, is_training)))
        everything = popularity.count_items_by_split(rows, splits)
        yield beam.pvalue.TaggedOutput(ALL_ITEMS, encode_columns(everything))
        yield summaries.count_events(rows, splits, len(everyone) - len(rows))


@dataclass(frozen=True)
class WrittenShard:
    """A timeline shard and what it holds; `sha256` of its bytes, `name` relative to the dataset."""

    split: Split
    name: str
    sha256: str
    rows: int
    target_rows: int
    visitors: int
    blocks: int
    moments: Moments


@dataclass(frozen=True)
class WriteTimelines:
    """A partition to one shard of each split."""

    layout: DatasetLayout
    work: Workspace
    cuts: tuple[int, int] | None
    config: PrepareConfig
    num_partitions: int
    visitors: VocabularyInfo
    items: VocabularyInfo

    def __call__(self, partition: int) -> list[WrittenShard]:
        everyone = _read_timelines(self.work, partition)
        rows, splits = timelines.split_timelines(everyone, self.cuts, self.config.split)
        visitor_index = self._visitor_indices(rows, partition)
        vocabulary = read_table(self.work.item_vocabulary)["id"].combine_chunks()
        item_index = vocabularies.assign_indices(rows.items, vocabulary, self.items.oov_buckets)
        wanted = SPLITS if self.config.split.method != SplitMethod.NONE else (Split.TRAIN,)
        return [
            self._write(split, partition, timelines.select_split(rows, splits, split, visitor_index, item_index))
            for split in wanted
        ]

    def _visitor_indices(self, rows: timelines.Timelines, partition: int) -> np.ndarray:
        known = read_table(self.work.visitor_indices(partition))
        places = pc.index_in(rows.visitors, value_set=known["id"].combine_chunks())
        is_known = places.is_valid().to_numpy(zero_copy_only=False)
        indices = np.empty(len(places), np.int64)
        indices[is_known] = known["index"].to_numpy()[places.drop_null().to_numpy()]
        unknown = rows.visitors.filter(pa.array(~is_known))
        indices[~is_known] = self.visitors.size + vocabularies.oov_bucket(unknown, self.visitors.oov_buckets)
        return indices

    def _write(self, split: Split, partition: int, rows: TimelineRows) -> WrittenShard:
        path = self.layout.timeline_shard(split, partition, self.num_partitions, compressed=self.config.compress)
        blocks = list(encode_blocks(rows, self.config.block_rows))
        content = _tfrecord_bytes(blocks, compression_of(path))
        storage.write_bytes(path, content)
        return WrittenShard(
            split=split,
            name=os.path.relpath(path, self.layout.root),
            sha256=hashlib.sha256(content).hexdigest(),
            rows=len(rows),
            target_rows=int(rows.is_target.sum()),
            visitors=int((rows.position == 0).sum()),
            blocks=len(blocks),
            moments=count_moments(rows, self.visitors.size, self.items.size),
        )


@dataclass(frozen=True)
class MergeProperties:
    """(partition, pieces) to a file of the latest properties; gives counts of items by property, items, and that."""

    work: Workspace

    def __call__(self, keyed: tuple[int, Iterable[Piece]]) -> Iterator[Any]:
        partition, pieces = keyed
        properties = catalogue.merge_properties(receive_rows(pieces))
        write_table(self.work.properties(partition), properties)
        yield beam.pvalue.TaggedOutput(SUMMARIES, summaries.ReadingSummary(partitions=frozenset([partition])))
        yield beam.pvalue.TaggedOutput(ALL_ITEMS, encode_columns(vocabularies.untouched_items(properties["item"])))
        yield encode_columns(catalogue.count_properties(properties))


class AssembleItems(beam.DoFn):
    """A partition of items to a file of catalogue rows as text; gives its description.

    On other outputs: counts of categories, of property values, and of views by category.
    """

    def __init__(
        self,
        work: Workspace,
        has_properties: bool,
        config: PropertyConfig,
        frequent: tuple[str, ...],
        tree: catalogue.CategoryTree,
    ) -> None:
        self._work, self._has_properties = work, has_properties
        self._config, self._frequent, self._tree = config, frequent, tree

    def process(self, partition: int) -> Iterator[Any]:
        items = read_table(self._work.items(partition))
        properties = read_table(self._work.properties(partition)) if self._has_properties else None
        rows = catalogue.assemble_items(properties, items, self._config, self._frequent, self._tree)
        write_table(self._work.catalogue(partition), rows)
        for tag, column in ((Vocabulary.CATEGORIES, "category_path"), (Vocabulary.PROPERTY_VALUES, "property_values")):
            yield beam.pvalue.TaggedOutput(
                tag, encode_columns(vocabularies.count_values(rows[column].combine_chunks()))
            )
        yield beam.pvalue.TaggedOutput(CATEGORY_VIEWS, encode_columns(catalogue.count_category_views(rows)))
        yield catalogue.describe_partition(rows, properties, self._config, self._tree)


@dataclass(frozen=True)
class GapBatch:
    """A partition to the batch of its training gaps that TF-Transform analyzes."""

    work: Workspace
    cuts: tuple[int, int] | None
    split: SplitConfig

    def __call__(self, partition: int) -> pa.RecordBatch:
        rows, splits = timelines.split_timelines(_read_timelines(self.work, partition), self.cuts, self.split)
        gaps = timelines.gaps_by_timeline(rows, splits == TRAIN)
        return transform.analysis_batch({"gap_seconds": gaps}, len(gaps))


@dataclass(frozen=True)
class PriceBatch:
    """All partitions to one batch of the prices of the vocabulary's items with training events.

    The shards hold what is made of their moments, and only sums in one order are the same with any number of threads.
    """

    work: Workspace

    def __call__(self, num_partitions: int) -> pa.RecordBatch:
        parts = [
            catalogue.trained_prices(read_table(self.work.catalogue(partition))) for partition in range(num_partitions)
        ]
        prices = transform.as_lists(pa.concat_arrays(parts))
        return transform.analysis_batch({"price": prices}, len(prices))


class WriteCatalogue(beam.DoFn):
    """A partition of items through the TF-Transform graph into a catalogue shard."""

    def __init__(self, layout: DatasetLayout, work: Workspace, num_partitions: int) -> None:
        self._layout, self._work, self._num_partitions = layout, work, num_partitions

    def setup(self) -> None:
        self._model = transform.load_transform(self._layout.transform)

    def process(self, partition: int) -> Iterator[str]:
        items = read_table(self._work.catalogue(partition))
        for name, column in transform.transform_catalogue(self._model, items).items():
            place = items.schema.get_field_index(name)
            items = items.append_column(name, column) if place < 0 else items.set_column(place, name, column)
        path = self._layout.catalogue_shard(partition, self._num_partitions)
        storage.write_bytes(path, encode_catalogue(in_order(items.select(CATALOGUE_SCHEMA.names))))
        yield path


@dataclass(frozen=True)
class WriteRejects:
    """(name, rejects) to one JSON Lines file of an input file's bad rows, in its order."""

    directory: str

    def __call__(self, keyed: tuple[str, Iterable[Rejects]]) -> str:
        name, parts = keyed
        rows = sorted(
            (position, reason, text, part.path)
            for part in parts
            for position, reason, text in zip(part.positions, part.reasons, part.texts, strict=True)
        )
        lines = (
            json.dumps({"file": path, "byte": position, "reason": reason, "row": text}, ensure_ascii=False)
            for position, reason, text, path in rows
        )
        path = join(self.directory, f"{name}.jsonl")
        storage.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
        return path


@dataclass(frozen=True)
class KeepResult:
    """The single element of a collection, kept for the program that started the pipeline."""

    path: str

    def __call__(self, result: Any) -> None:
        write_result(self.path, result)


class Merge(beam.CombineFn):
    """Many parts to one by a function that makes one of several.

    Of a bare function Beam would keep a hundred parts in memory; those of a large shop have many MiB each.
    """

    def __init__(self, merge: Callable[[Iterable[Any]], Any]) -> None:
        self._merge = merge

    def create_accumulator(self) -> list[Any]:
        return []

    def add_input(self, accumulator: list[Any], part: Any) -> list[Any]:
        accumulator.append(part)
        return accumulator if len(accumulator) < _PARTS_AT_ONCE else self.compact(accumulator)

    def merge_accumulators(self, accumulators: Iterable[list[Any]]) -> list[Any]:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            for part in accumulator:
                merged = self.add_input(merged, part)
        return merged

    def compact(self, accumulator: list[Any]) -> list[Any]:
        return [self._merge(accumulator)]

    def extract_output(self, accumulator: list[Any]) -> Any:
        return self._merge(accumulator)


def split_infos(shards: Iterable[WrittenShard]) -> dict[Split, SplitInfo]:
    """The manifest's entry of each split from its shards."""
    in_order = sorted(shards, key=lambda shard: shard.name)
    by_split = {split: [shard for shard in in_order if shard.split == split] for split in SPLITS}
    return {
        split: SplitInfo(
            rows=sum(shard.rows for shard in of_split),
            target_rows=sum(shard.target_rows for shard in of_split),
            visitors=sum(shard.visitors for shard in of_split),
            blocks=sum(shard.blocks for shard in of_split),
            files=tuple(shard.name for shard in of_split),
        )
        for split, of_split in by_split.items()
        if of_split
    }


def reject_name(what: str, source: ByteRange) -> str:
    """The name of the file that holds an input file's bad rows: `events-00000-events.csv`."""
    return f"{what}-{source.ordinal:05d}-{os.path.basename(source.path)}"


def _account(what: str, source: ByteRange, summary: summaries.ReadingSummary, rejects: Rejects) -> Iterator[Any]:
    yield beam.pvalue.TaggedOutput(SUMMARIES, summary)
    if rejects.reasons:
        yield beam.pvalue.TaggedOutput(REJECTS, (reject_name(what, source), keep_first(rejects)))


def _read_timelines(work: Workspace, partition: int) -> timelines.Timelines:
    return timelines.decode_timelines(storage.read_bytes(work.timelines(partition)))


def _tfrecord_bytes(records: list[bytes], compression: str) -> bytes:
    # TensorFlow frames records only into files; the file is local, so that the shard may lie in any store
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "shard")
        with tf.io.TFRecordWriter(path, compression) as writer:
            for record in records:
                writer.write(record)
        return storage.read_bytes(path)
