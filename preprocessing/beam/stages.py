"""Beam transforms. Each transform reads columns, calls pure functions and writes the result to files.

Beam never moves rows between transforms, only references to them (a part of a file, a partition number, a position in a
file) and summaries.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
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
from preprocessing.events import EventMapping, parse_events
from preprocessing.histograms import count_floats
from preprocessing.item_table import ItemTableMapping, parse_item_table
from preprocessing.sources.rejects import Rejects
from preprocessing.sources.source import Part
from preprocessing.splits import SPLITS, TRAIN, Cuts
from preprocessing.statistics import popularity, summaries
from preprocessing.statistics.correlation import Moments, count_moments
from preprocessing.timelines import SplitTimelines, Timelines
from preprocessing.workspace import Workspace, read_table, write_table

# tags of outputs
REJECTS, SUMMARIES, BYTES_READ, TRAINED_ITEMS, ALL_ITEMS, CATEGORY_EVENTS, PRICES = (
    "rejects",
    "summaries",
    "bytes-read",
    "trained-items",
    "all-items",
    "category-events",
    "prices",
)


class RouteEvents(beam.DoFn):
    """Reads a part of the event log, and writes the events grouped by visitor partition.

    Outputs (partition, Piece). Tagged outputs: REJECTS (the invalid rows), SUMMARIES (counts of rows) and BYTES_READ.
    """

    def __init__(self, work: Workspace, num_partitions: int, mapping: EventMapping) -> None:
        self._work, self._num_partitions, self._mapping = work, num_partitions, mapping

    def process(self, part: Part) -> Iterator[Any]:
        for batch in part.source.read(part):
            events = parse_events(batch, self._mapping)
            summary = summaries.summarize_reading(len(events.table), batch.num_blank, events.rejects, events.filtered)
            position = (part.ordinal, batch.position)
            path = self._work.chunk("events", position)
            yield from send_rows(events.table, "visitor", self._num_partitions, position, path)
            yield from _output_reading("events", part, summary, events.rejects)
        yield beam.pvalue.TaggedOutput(BYTES_READ, part.size)


class RouteProperties(beam.DoFn):
    """Reads a part of the item properties or item table, and writes the rows grouped by item partition.

    Item properties at or after `until_ms` (milliseconds since 1970) are ignored. The outputs are like those of
    `RouteEvents`.
    """

    def __init__(
        self, work: Workspace, num_partitions: int, until_ms: float, table: ItemTableMapping | None = None
    ) -> None:
        self._work, self._num_partitions, self._until_ms, self._table = work, num_partitions, until_ms, table

    def process(self, part: Part) -> Iterator[Any]:
        for batch in part.source.read(part):
            if self._table is None:
                table, summary, rejects = catalogue.parse_properties(batch, self._until_ms)
            else:
                table, summary, rejects = parse_item_table(batch, self._table)
            position = (part.ordinal, batch.position)
            path = self._work.chunk("item-properties", position)
            yield from send_rows(table, "item", self._num_partitions, position, path)
            yield from _output_reading("item-properties", part, summary, rejects)
        yield beam.pvalue.TaggedOutput(BYTES_READ, part.size)


@dataclass(frozen=True)
class AssembleTimelines:
    """Writes cleaned timelines from the events of one partition of the visitors. Outputs a summary of the cleaning."""

    work: Workspace
    max_events_per_day: int
    keep_repeats: bool

    def __call__(self, keyed: tuple[int, Iterable[Piece]]) -> summaries.ReadingSummary:
        partition, pieces = keyed
        rows, cleaning = timelines.assemble_timelines(
            receive_rows(pieces), self.max_events_per_day, keep_repeats=self.keep_repeats
        )
        write_timelines(self.work, partition, rows)
        return summaries.summarize_cleaning(partition, rows, cleaning)


class CountIds(beam.DoFn):
    """Counts the events of one partition of the visitors and outputs its EventStatistics.

    Writes the training events per visitor to a file. Tagged outputs: TRAINED_ITEMS (training events per item) and
    ALL_ITEMS (events per item and split).
    """

    def __init__(self, work: Workspace, cuts: Cuts | None, config: SplitConfig, num_kinds: int) -> None:
        self._work, self._cuts, self._config, self._num_kinds = work, cuts, config, num_kinds

    def process(self, partition: int) -> Iterator[Any]:
        rows = read_split_timelines(self._work, partition, self._cuts, self._config)
        is_training = rows.splits == TRAIN
        write_table(self._work.visitor_counts(partition), vocabularies.count_visitors(rows.timelines, is_training))
        trained_items = vocabularies.count_items(rows.timelines, is_training, self._num_kinds)
        yield beam.pvalue.TaggedOutput(TRAINED_ITEMS, encode_columns(trained_items))
        all_items = popularity.count_items_by_split(rows.timelines, rows.splits, self._num_kinds)
        yield beam.pvalue.TaggedOutput(ALL_ITEMS, encode_columns(all_items))
        yield summaries.count_events(rows, self._num_kinds)


@dataclass(frozen=True)
class WrittenShard:
    """Description of a timeline shard, which contains the timelines of one visitor partition in one split."""

    split: Split
    """Split of the shard. Its events are the target rows; earlier events of the same visitors are context rows."""
    name: str
    """Path relative to the dataset's root."""
    sha256: str
    """Checksum of the file."""
    rows: int
    """Number of rows, including context rows."""
    target_rows: int
    """Number of rows without context rows."""
    visitors: int
    """Number of timelines."""
    blocks: int
    """Number of tf.train.Examples."""
    moments: Moments
    """Moments of the target rows' columns, for correlations."""


@dataclass(frozen=True)
class WriteTimelines:
    """Writes the timelines of a visitor partition, one shard per split; outputs descriptions of the shards."""

    layout: DatasetLayout
    work: Workspace
    cuts: Cuts | None
    config: PrepareConfig
    num_partitions: int
    visitors: VocabularyInfo
    items: VocabularyInfo

    def __call__(self, partition: int) -> list[WrittenShard]:
        rows, splits, _ = read_split_timelines(self.work, partition, self.cuts, self.config.split)
        visitor_index = self._assign_visitor_indices(rows, partition)
        vocabulary = read_table(self.work.item_vocabulary)["id"].combine_chunks()
        item_index = vocabularies.assign_indices(rows.items, vocabulary, self.items.oov_buckets)
        written = SPLITS if self.config.split.method != SplitMethod.NONE else (Split.TRAIN,)
        return [
            self._write(
                split,
                partition,
                timelines.select_split(rows, splits, split, visitor_index, item_index),
                timelines.select_unknown_ids(rows, splits, split, visitor_index, self.visitors.size),
            )
            for split in written
        ]

    def _assign_visitor_indices(self, rows: Timelines, partition: int) -> np.ndarray:
        known = read_table(self.work.visitor_indices(partition))
        found = pc.index_in(rows.visitors, value_set=known["id"].combine_chunks())
        is_known = found.is_valid().to_numpy(zero_copy_only=False)
        indices = np.empty(len(found), np.int64)
        indices[is_known] = known["index"].to_numpy()[found.drop_null().to_numpy()]
        unknown = rows.visitors.filter(pa.array(~is_known))
        indices[~is_known] = self.visitors.size + vocabularies.assign_oov_buckets(unknown, self.visitors.oov_buckets)
        return indices

    def _write(self, split: Split, partition: int, rows: TimelineRows, unknown_ids: Sequence[str]) -> WrittenShard:
        path = self.layout.timeline_shard(split, partition, self.num_partitions, compressed=self.config.compress)
        blocks = list(encode_blocks(rows, self.config.block_rows, unknown_ids))
        content = _frame_records(blocks, compression_of(path))
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
    """Gathers the properties of an item partition from its pieces, and writes the latest values.

    Outputs the number of items per property. Tagged outputs: ALL_ITEMS (the items) and SUMMARIES (a ReadingSummary).
    """

    work: Workspace
    num_kinds: int

    def __call__(self, keyed: tuple[int, Iterable[Piece]]) -> Iterator[Any]:
        partition, pieces = keyed
        properties = catalogue.merge_properties(receive_rows(pieces))
        write_table(self.work.properties(partition), properties)
        yield beam.pvalue.TaggedOutput(SUMMARIES, summaries.ReadingSummary(partitions=frozenset([partition])))
        no_events = vocabularies.count_no_events(properties["item"], self.num_kinds)
        yield beam.pvalue.TaggedOutput(ALL_ITEMS, encode_columns(no_events))
        yield encode_columns(catalogue.count_properties(properties))


class AssembleItems(beam.DoFn):
    """Writes the catalogue rows of an item partition. Categories and property values are texts, not indices.

    Outputs counts of the items and of invalid property values. Tagged outputs: the number of items per category and per
    property value, the training events per category, and a histogram of prices.
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
            counts = vocabularies.count_values(rows[column].combine_chunks())
            yield beam.pvalue.TaggedOutput(tag, encode_columns(counts))
        yield beam.pvalue.TaggedOutput(CATEGORY_EVENTS, encode_columns(catalogue.count_category_events(rows)))
        yield beam.pvalue.TaggedOutput(PRICES, count_floats(catalogue.select_trained_prices(rows)))
        yield catalogue.describe_partition(rows, properties, self._config, self._tree)


class WriteCatalogue(beam.DoFn):
    """Applies the TF-Transform graph to an item partition and writes its catalogue shard."""

    def __init__(self, layout: DatasetLayout, work: Workspace, num_partitions: int) -> None:
        self._layout, self._work, self._num_partitions = layout, work, num_partitions

    def setup(self) -> None:
        self._model = transform.load_transform(self._layout.transform)

    def process(self, partition: int) -> Iterator[str]:
        items = read_table(self._work.catalogue(partition))
        for name, column in transform.transform_catalogue(self._model, items).items():
            index = items.schema.get_field_index(name)
            items = items.append_column(name, column) if index < 0 else items.set_column(index, name, column)
        path = self._layout.catalogue_shard(partition, self._num_partitions)
        storage.write_bytes(path, encode_catalogue(in_order(items.select(CATALOGUE_SCHEMA.names))))
        yield path


@dataclass(frozen=True)
class WriteRejects:
    """Writes the invalid rows of an input file as JSON Lines. Called with (output file without extension, rejects)."""

    directory: str

    def __call__(self, keyed: tuple[str, Iterable[Rejects]]) -> str:
        name, parts = keyed
        rows = sorted(
            (position, reason, text, part.path)
            for part in parts
            for position, reason, text in zip(part.positions, part.reasons, part.texts, strict=True)
        )
        lines = (
            json.dumps(
                {"file": path, "position": position, "reason": reason, "row": text}, ensure_ascii=False, allow_nan=False
            )
            for position, reason, text, path in rows
        )
        path = join(self.directory, f"{name}.jsonl")
        storage.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
        return path


def summarize_splits(shards: Iterable[WrittenShard]) -> dict[Split, SplitInfo]:
    """Adds up the numbers of rows, visitors and blocks of each split's shards."""
    by_name = sorted(shards, key=lambda shard: shard.name)
    by_split = {split: [shard for shard in by_name if shard.split == split] for split in SPLITS}
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


def name_reject_file(kind: str, part: Part) -> str:
    """Returns the name, without extension, of the file for the invalid rows of an input file.

    Example: `events-00000-events`, for the kind `events` and the first input file, `events.csv`.
    """
    return f"{kind}-{part.ordinal:05d}-{os.path.basename(part.path)}"


def write_timelines(work: Workspace, partition: int, rows: Timelines) -> None:
    """Writes the cleaned timelines of a visitor partition."""
    storage.write_bytes(work.timelines(partition), timelines.encode_timelines(rows))


def read_split_timelines(work: Workspace, partition: int, cuts: Cuts | None, config: SplitConfig) -> SplitTimelines:
    """Reads a visitor partition, assigns its events to splits, and excludes robots."""
    rows = timelines.decode_timelines(storage.read_bytes(work.timelines(partition)))
    return timelines.split_timelines(rows, cuts, config)


def _output_reading(
    kind: str, part: Part, summary: summaries.ReadingSummary, rejects: Rejects
) -> Iterator[beam.pvalue.TaggedOutput]:
    yield beam.pvalue.TaggedOutput(SUMMARIES, summary)
    if rejects.reasons:
        yield beam.pvalue.TaggedOutput(REJECTS, (name_reject_file(kind, part), rejects.limit()))


def _frame_records(records: list[bytes], compression: str) -> bytes:
    """Returns the content of a TFRecord file. `compression`: as for `tf.io.TFRecordWriter`."""
    # TensorFlow frames records only in files; this file is local, because TensorFlow cannot open all stores
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "shard")
        with tf.io.TFRecordWriter(path, compression) as writer:
            for record in records:
                writer.write(record)
        return storage.read_bytes(path)
