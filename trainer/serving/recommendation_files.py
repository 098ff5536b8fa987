"""Encodes a shard of recommendations as Parquet or JSON Lines.

Shapes: V visitors of the shard, K list, I items.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class ShardLists:
    """The lists of a shard, best item first."""

    visitor_id: Sequence[str]
    """V ids."""
    item: np.ndarray
    """[V, K] int64 vocabulary indices."""
    score: np.ndarray
    """[V, K] float32, descending; -inf marks the end of a shorter list."""


def encode_parquet(lists: ShardLists, item_ids: np.ndarray) -> bytes:
    """Encodes a row per visitor: visitor_id string, item_id list of strings, score list of floats; item_ids is [I]."""
    is_item = lists.score > -np.inf
    offsets = pa.array(np.concatenate([[0], is_item.sum(axis=1).cumsum()]), pa.int32())
    items = pa.array(item_ids, pa.string()).take(pa.array(lists.item[is_item]))
    table = pa.table(
        {
            "visitor_id": pa.array(lists.visitor_id, pa.string()),
            "item_id": pa.ListArray.from_arrays(offsets, items),
            "score": pa.ListArray.from_arrays(offsets, pa.array(lists.score[is_item])),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def encode_jsonl(lists: ShardLists, item_ids: np.ndarray) -> bytes:
    """Encodes a line per visitor: {"visitor_id": …, "items": [{"item_id": …, "score": …}, …]}; item_ids is [I]."""
    lines = []
    for visitor_id, names, scores in zip(
        lists.visitor_id, item_ids[lists.item].tolist(), lists.score.tolist(), strict=True
    ):
        pairs = zip(names, scores, strict=True)
        items = [{"item_id": name, "score": score} for name, score in pairs if score > -np.inf]
        lines.append(json.dumps({"visitor_id": visitor_id, "items": items}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


ENCODERS: Mapping[str, Callable[[ShardLists, np.ndarray], bytes]] = {"parquet": encode_parquet, "jsonl": encode_jsonl}
"""The encoder of each format; the name is also the suffix of its files."""
