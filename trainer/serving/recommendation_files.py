"""Encodes a shard of recommendations as Parquet or JSON Lines.

Shapes: V visitors of the shard, K items of the longest list, I items of the vocabulary.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contract.schema import Vocabulary
from trainer.data.dataset import Dataset


@dataclass(frozen=True)
class ShardLists:
    """The recommendation lists of one shard of visitors, best item first."""

    visitor_id: Sequence[str]
    """Ids of the V visitors."""
    item: np.ndarray
    """[V, K] int64 vocabulary indices of the items of the lists."""
    score: np.ndarray
    """[V, K] float32 scores of the items, descending. A score of -inf is padding after the end of a shorter list."""


@dataclass(frozen=True)
class ItemNames:
    """Ids and titles of the catalogue's items."""

    ids: np.ndarray
    """[I] ids, of type object."""
    titles: np.ndarray | None = None
    """[I] titles, of type object, with None for unknown titles. None: no item has a title."""

    @classmethod
    def of(cls, dataset: Dataset) -> "ItemNames":
        """Reads the ids and titles of a dataset's items."""
        titles = np.array(dataset.catalogue["title"].to_pylist(), object)
        has_titles = any(title is not None for title in titles)
        return cls(np.array(dataset.vocabulary(Vocabulary.ITEMS), object), titles if has_titles else None)


def encode_parquet(lists: ShardLists, names: ItemNames) -> bytes:
    """Encodes the lists as Parquet: columns `visitor_id`, `item_id`, `score` and, if the items have titles, `title`."""
    is_item = lists.score > -np.inf
    offsets = pa.array(np.concatenate([[0], is_item.sum(axis=1).cumsum()]), pa.int32())
    item = pa.array(lists.item[is_item])
    columns = {
        "visitor_id": pa.array(lists.visitor_id, pa.string()),
        "item_id": pa.ListArray.from_arrays(offsets, pa.array(names.ids, pa.string()).take(item)),
        "score": pa.ListArray.from_arrays(offsets, pa.array(lists.score[is_item])),
    }
    if names.titles is not None:
        columns["title"] = pa.ListArray.from_arrays(offsets, pa.array(names.titles, pa.string()).take(item))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def encode_jsonl(lists: ShardLists, names: ItemNames) -> bytes:
    """Encodes a line per visitor: {"visitor_id": …, "items": [{"item_id": …, "score": …, "title": …}, …]}.

    The title of an item without title is null. If `names` has no titles, the key `title` is omitted.
    """
    columns = {"item_id": names.ids[lists.item].tolist(), "score": lists.score.tolist()}
    if names.titles is not None:
        columns["title"] = names.titles[lists.item].tolist()
    lengths = (lists.score > -np.inf).sum(axis=1).tolist()
    lines = []
    for visitor_id, length, *rows in zip(lists.visitor_id, lengths, *columns.values(), strict=True):
        items = [
            dict(zip(columns, values, strict=True)) for values in zip(*(row[:length] for row in rows), strict=True)
        ]
        lines.append(json.dumps({"visitor_id": visitor_id, "items": items}, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines).encode()


ENCODERS: Mapping[str, Callable[[ShardLists, ItemNames], bytes]] = {"parquet": encode_parquet, "jsonl": encode_jsonl}
"""The encoder of each format, by the name of the format, which is also the suffix of its files."""
