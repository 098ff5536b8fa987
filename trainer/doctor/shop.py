"""Writes a small synthetic dataset for the GPU checks, because an image of the trainer has no `preprocessing`.

Shapes: V visitors, E events per visitor, I items.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from common import storage
from contract.catalogue import CATALOGUE_SCHEMA, encode_catalogue
from contract.layout import DatasetLayout
from contract.manifest import Manifest, SplitInfo, VocabularyInfo, write_manifest
from contract.schema import DEFAULT_KINDS, Split, SplitMethod, Vocabulary
from contract.timelines import TimelineRows, encode_blocks

EVENTS = 12
"""Events per visitor, E. The second to last is in the validation split, the last one in the test split."""
_TASTES = 10
"""Number of groups of visitors; most events of a visitor are with items of the same group."""
_VALUES = 50
"""Number of property values."""
_START_MS, _DAY_MS = 1_430_000_000_000, 86_400_000
_CUTS = (_START_MS + 30 * _DAY_MS, _START_MS + 31 * _DAY_MS)
_SHARDS, _BLOCK_ROWS = 4, 256


def write_shop(root: str, *, visitors: int, items: int, seed: int = 0) -> None:
    """Writes a dataset of V visitors and I items, split by time; equal arguments give equal bytes."""
    generator = np.random.default_rng(seed)
    item = _draw_items(generator, visitors, items)
    event = generator.choice(len(DEFAULT_KINDS), (visitors, EVENTS), p=[0.9, 0.07, 0.03])
    day = np.append(np.zeros(EVENTS - 2), [30, 31])
    within = np.sort(generator.random((visitors, EVENTS)), axis=1) * np.append(np.full(EVENTS - 2, 29), [0.9, 0.9])
    time = (_START_MS + (day + within) * _DAY_MS).astype(np.int64)
    layout = DatasetLayout(root)
    tf.io.gfile.makedirs(layout.timelines)
    splits = {
        split: _write_split(layout, split, item[:, :end], event[:, :end], time[:, :end])
        for split, end in ((Split.TRAIN, EVENTS - 2), (Split.VALIDATION, EVENTS - 1), (Split.TEST, EVENTS))
    }
    vocabularies = _write_vocabularies(layout, visitors, items)
    catalogue = _catalogue(item[:, :-2], event[:, :-2], time[:, :-2], items)
    storage.write_bytes(layout.catalogue_shard(0, 1), encode_catalogue(catalogue))
    manifest = Manifest(
        event_kinds=DEFAULT_KINDS,
        event_weights=None,
        split_method=SplitMethod.TIME,
        validation_from_ms=_CUTS[0],
        test_from_ms=_CUTS[1],
        vocabularies=vocabularies,
        splits=splits,
        config={},
        files={name: storage.sha256(f"{root}/{name}") for name in storage.list_files(root)},
    )
    write_manifest(manifest, root)


def _draw_items(generator: np.random.Generator, visitors: int, items: int) -> np.ndarray:
    """Draws the items [V, E] of all events. Indices are in order of frequency in the training split."""
    popular = generator.pareto(1.0, (visitors, EVENTS)) * items / 100
    drawn = np.minimum(popular, items // _TASTES - 1).astype(np.int64) * _TASTES
    taste = np.where(generator.random((visitors, EVENTS)) < 0.8, np.arange(visitors)[:, None], drawn // _TASTES)
    item = drawn + taste % _TASTES
    counts = np.bincount(item[:, :-2].ravel(), minlength=items)
    index = np.empty(items, np.int64)
    index[np.argsort(-counts, kind="stable")] = np.arange(items)
    by_frequency: np.ndarray = index[item]
    return by_frequency


def _write_split(
    layout: DatasetLayout, split: Split, item: np.ndarray, event: np.ndarray, time: np.ndarray
) -> SplitInfo:
    """Writes the timelines of a split: columns [V, n]. All events of training are targets, otherwise the last one."""
    visitors, length = item.shape
    is_target = np.ones(length) if split == Split.TRAIN else np.arange(length) == length - 1
    files, blocks = [], 0
    for shard in range(_SHARDS):
        own = np.arange(shard, visitors, _SHARDS)
        rows = TimelineRows(
            visitor=np.repeat(own, length),
            position=np.tile(np.arange(length), len(own)),
            item=item[own].ravel(),
            event=event[own].ravel(),
            timestamp_ms=time[own].ravel(),
            is_target=np.tile(is_target, len(own)).astype(np.int64),
        )
        path = layout.timeline_shard(split, shard, _SHARDS, compressed=False)
        with tf.io.TFRecordWriter(path) as writer:
            for block in encode_blocks(rows, _BLOCK_ROWS):
                writer.write(block)
                blocks += 1
        files.append(path.removeprefix(f"{layout.root}/"))
    targets = visitors * int(is_target.sum())
    return SplitInfo(rows=visitors * length, target_rows=targets, visitors=visitors, blocks=blocks, files=tuple(files))


def _write_vocabularies(layout: DatasetLayout, visitors: int, items: int) -> dict[Vocabulary, VocabularyInfo]:
    sizes = {
        Vocabulary.VISITORS: visitors,
        Vocabulary.ITEMS: items,
        Vocabulary.CATEGORIES: _TASTES,
        Vocabulary.PROPERTY_VALUES: _VALUES,
    }
    for name, size in sizes.items():
        storage.write_bytes(layout.vocabulary(name), "".join(f"{id_}\n" for id_ in _ids(name, size)).encode())
    return {name: VocabularyInfo(size=size, oov_buckets=1) for name, size in sizes.items()}


def _ids(name: Vocabulary, size: int) -> Sequence[str]:
    return [f"{name[0]}{number}" for number in range(size)]


def _catalogue(item: np.ndarray, event: np.ndarray, time: np.ndarray, items: int) -> pa.Table:
    """Builds the catalogue from the training events: columns [V, n]."""
    counts = np.zeros((items, len(DEFAULT_KINDS)), np.int64)
    np.add.at(counts, (item.ravel(), event.ravel()), 1)
    first, last = np.full(items, np.iinfo(np.int64).max), np.zeros(items, np.int64)
    np.minimum.at(first, item.ravel(), time.ravel())
    np.maximum.at(last, item.ravel(), time.ravel())
    index, is_sold = np.arange(items), counts.sum(axis=1) > 0
    return pa.table(
        {
            "item_id": _ids(Vocabulary.ITEMS, items),
            "item_index": index,
            "title": pa.nulls(items, pa.string()),
            "category_id": [f"c{number}" for number in index % _TASTES],
            "category_path": (index % _TASTES)[:, None].tolist(),
            "is_available": np.ones(items, bool),
            "price": (1.0 + index % 100).astype(np.float32),
            "price_bucket": 1 + index % 10,
            "price_scaled": np.zeros(items, np.float32),
            "property_values": np.stack([index % _VALUES, (index // 7 + 1) % _VALUES], axis=1).tolist(),
            "event_counts": counts.tolist(),
            "first_seen_ms": pa.array(first, mask=~is_sold),
            "last_seen_ms": pa.array(last, mask=~is_sold),
        },
        schema=CATALOGUE_SCHEMA,
    )
