"""Small prepared datasets for the trainer's tests, written by the functions of `contract`."""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf

from common import storage
from contract.catalogue import CATALOGUE_SCHEMA, encode_catalogue
from contract.layout import DatasetLayout
from contract.manifest import Manifest, SplitInfo, VocabularyInfo, write_manifest
from contract.schema import DEFAULT_KINDS, TIMELINE_FEATURES, Split, SplitMethod, Vocabulary
from contract.timelines import TimelineRows, encode_blocks, timeline_starts
from trainer.data.dataset import Dataset, open_dataset


class Event(NamedTuple):
    """One row of an event log; ids outside the vocabularies go to an out-of-vocabulary bucket."""

    visitor: str
    item: str
    kind: str = "view"
    timestamp_ms: int = 0
    weight: float = 1.0


def build_dataset(
    root: str,
    *,
    train: Sequence[Event | tuple],
    validation: Sequence[Event | tuple] = (),
    test: Sequence[Event | tuple] = (),
    visitors: Sequence[str],
    items: Sequence[str],
    categories: Mapping[str, Sequence[str]] | None = None,
    prices: Mapping[str, int] | None = None,
    property_values: Mapping[str, Sequence[str]] | None = None,
    available: Mapping[str, bool] | None = None,
    titles: Mapping[str, str] | None = None,
    kinds: Sequence[str] = DEFAULT_KINDS,
    weights: tuple[float, ...] | None = None,
    oov_buckets: int = 1,
    split_method: SplitMethod = SplitMethod.TIME,
    num_shards: int = 1,
    block_rows: int = 1024,
    compressed: bool = False,
) -> Dataset:
    """Writes a dataset below `root` and opens it.

    Args:
      root: directory of the dataset.
      train: events (visitor, item, kind, timestamp_ms, weight); the values after the item are optional.
      validation: events in the same form; if empty, the split is not written. Earlier rows of a visitor become context.
      test: as `validation`.
      visitors: vocabulary of visitors, in order.
      items: vocabulary of items, in order.
      categories: category path by item, from the root down; other items have none.
      prices: price bucket by item, from 1; other items have no price.
      property_values: property values by item; other items have none.
      available: availability by item; that of other items is unknown.
      titles: title by item; other items have none.
      kinds: event kinds of the shop.
      weights: the shop's weights of the kinds.
      oov_buckets: out-of-vocabulary buckets of each vocabulary.
      split_method: method in the manifest.
      num_shards: files per split.
      block_rows: maximum number of rows of a block.
      compressed: whether to compress the shards.
    """
    vocabularies = _write_vocabularies(DatasetLayout(root), visitors, items, categories or {}, property_values or {})
    rows_of = {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}
    events = {split: [Event(*event) for event in rows] for split, rows in rows_of.items()}
    named = (Vocabulary.VISITORS, Vocabulary.ITEMS)
    indices = {name: {word: index for index, word in enumerate(vocabularies[name])} for name in named}
    splits = {}
    for number, (split, targets) in enumerate(events.items()):
        if targets or split == Split.TRAIN:
            context = [event for earlier in list(events)[:number] for event in events[earlier]]
            rows, ids = _timelines(context, targets, indices, oov_buckets, kinds)
            splits[split] = _write_split(root, split, rows, ids, num_shards, block_rows, compressed)
    properties = (categories or {}, prices or {}, property_values or {}, available or {}, titles or {})
    table = _catalogue(events[Split.TRAIN], vocabularies, kinds, *properties)
    storage.write_bytes(DatasetLayout(root).catalogue_shard(0, 1), encode_catalogue(table))
    manifest = Manifest(
        event_kinds=tuple(kinds),
        event_weights=weights,
        split_method=split_method,
        validation_from_ms=_first_ms(events[Split.VALIDATION]) if split_method == SplitMethod.TIME else None,
        test_from_ms=_first_ms(events[Split.TEST]) if split_method == SplitMethod.TIME else None,
        vocabularies={
            name: VocabularyInfo(size=len(ids), oov_buckets=oov_buckets) for name, ids in vocabularies.items()
        },
        splits=splits,
        config={},
        files={name: storage.sha256(f"{root}/{name}") for name in storage.list_files(root)},
    )
    write_manifest(manifest, root)
    return open_dataset(root)


def _write_vocabularies(
    layout: DatasetLayout,
    visitors: Sequence[str],
    items: Sequence[str],
    categories: Mapping[str, Sequence[str]],
    property_values: Mapping[str, Sequence[str]],
) -> dict[Vocabulary, list[str]]:
    vocabularies = {
        Vocabulary.VISITORS: list(visitors),
        Vocabulary.ITEMS: list(items),
        Vocabulary.CATEGORIES: sorted({name for path in categories.values() for name in path}),
        Vocabulary.PROPERTY_VALUES: sorted({name for words in property_values.values() for name in words}),
    }
    for name, ids in vocabularies.items():
        storage.write_bytes(layout.vocabulary(name), "".join(f"{word}\n" for word in ids).encode())
    return vocabularies


def checkerboard(num_visitors: int = 60, num_items: int = 20, per_visitor: int = 6, seed: int = 0) -> dict[str, Any]:
    """Returns arguments of `build_dataset`: visitors view only items of their own parity, in all three splits.

    A model that learns must rank the items of a visitor's parity first, as in the test suite of `implicit`.
    """
    generator = np.random.default_rng(seed)
    events: dict[str, list[Event]] = {"train": [], "validation": [], "test": []}
    for visitor in range(num_visitors):
        items = generator.permutation(np.arange(visitor % 2, num_items, 2))[: per_visitor + 2]
        for number, item in enumerate(items):
            name = "train" if number < per_visitor else "validation" if number == per_visitor else "test"
            offset = {"train": 0, "validation": 1_000, "test": 2_000}[name]
            events[name].append(Event(f"v{visitor}", f"i{item}", "view", offset + number))
    return {
        **events,
        "visitors": [f"v{visitor}" for visitor in range(num_visitors)],
        "items": [f"i{item}" for item in range(num_items)],
    }


def _first_ms(events: Sequence[Event]) -> int | None:
    return min((event.timestamp_ms for event in events), default=None)


def _index(word: str, indices: Mapping[str, int], oov_buckets: int) -> int:
    return indices.get(word, len(indices) + zlib.crc32(word.encode()) % oov_buckets)


def _timelines(
    context: Sequence[Event],
    targets: Sequence[Event],
    indices: Mapping[Vocabulary, Mapping[str, int]],
    oov_buckets: int,
    kinds: Sequence[str],
) -> tuple[TimelineRows, list[str]]:
    """Builds timelines of the targets' visitors, ordered by first target; ties in time keep the given order.

    Also returns the visitor of each timeline; "" for visitors in the vocabulary.
    """
    timelines: dict[str, list[tuple[Event, int]]] = {event.visitor: [] for event in targets}
    for event, is_target in [(event, 0) for event in context] + [(event, 1) for event in targets]:
        if event.visitor in timelines:
            timelines[event.visitor].append((event, is_target))
    columns: list[tuple[float, ...]] = []
    for visitor, rows in timelines.items():
        for position, (event, is_target) in enumerate(sorted(rows, key=lambda row: row[0].timestamp_ms)):
            columns.append(
                (
                    _index(visitor, indices[Vocabulary.VISITORS], oov_buckets),
                    position,
                    _index(event.item, indices[Vocabulary.ITEMS], oov_buckets),
                    kinds.index(event.kind),
                    event.timestamp_ms,
                    is_target,
                    event.weight,
                )
            )
    *numbers, weight = np.array(columns).reshape(-1, len(TIMELINE_FEATURES) + 1).T
    ids = ["" if visitor in indices[Vocabulary.VISITORS] else visitor for visitor in timelines]
    return TimelineRows(*(column.astype(np.int64) for column in numbers), weight.astype(np.float32)), ids


def _write_split(
    root: str,
    split: Split,
    rows: TimelineRows,
    ids: Sequence[str],
    num_shards: int,
    block_rows: int,
    compressed: bool,
) -> SplitInfo:
    layout = DatasetLayout(root)
    starts = timeline_starts(rows.position)
    timeline_of_row = np.cumsum(rows.position == 0) - 1
    tf.io.gfile.makedirs(layout.timelines)
    files, num_blocks = [], 0
    for shard in range(num_shards):
        path = layout.timeline_shard(split, shard, num_shards, compressed=compressed)
        with tf.io.TFRecordWriter(path, "GZIP" if compressed else "") as writer:
            for block in encode_blocks(rows[timeline_of_row % num_shards == shard], block_rows, ids[shard::num_shards]):
                writer.write(block)
                num_blocks += 1
        files.append(path.removeprefix(f"{root}/"))
    return SplitInfo(
        rows=len(rows),
        target_rows=int(rows.is_target.sum()),
        visitors=len(starts),
        blocks=num_blocks,
        files=tuple(files),
    )


def _catalogue(
    train: Sequence[Event],
    vocabularies: Mapping[Vocabulary, list[str]],
    kinds: Sequence[str],
    categories: Mapping[str, Sequence[str]],
    prices: Mapping[str, int],
    property_values: Mapping[str, Sequence[str]],
    available: Mapping[str, bool],
    titles: Mapping[str, str],
) -> pa.Table:
    category_index = {name: index for index, name in enumerate(vocabularies[Vocabulary.CATEGORIES])}
    value_index = {name: index for index, name in enumerate(vocabularies[Vocabulary.PROPERTY_VALUES])}
    rows, events_of = [], defaultdict[str, list[Event]](list)
    for event in train:
        events_of[event.item].append(event)
    for index, item in enumerate(vocabularies[Vocabulary.ITEMS]):
        events = events_of[item]
        path = categories.get(item, ())
        times = [event.timestamp_ms for event in events]
        counts = [sum(event.kind == kind for event in events) for kind in kinds]
        rows.append(
            {
                "item_id": item,
                "item_index": index,
                "title": titles.get(item),
                "category_id": path[-1] if path else None,
                "category_path": [category_index[name] for name in path],
                "is_available": available.get(item),
                "price": None,
                "price_bucket": prices.get(item, 0),
                "price_scaled": 0.0,
                "property_values": [value_index[name] for name in property_values.get(item, ())],
                "event_counts": counts,
                "first_seen_ms": min(times, default=None),
                "last_seen_ms": max(times, default=None),
            }
        )
    return pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)
