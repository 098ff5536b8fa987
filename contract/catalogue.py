"""The catalogue in Parquet shards: one row per item, as known at the first cut (the end of training).

Shapes: I items.
"""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common import storage
from common.errors import ContractError

CATALOGUE_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        # index in the item vocabulary; -1: not in the vocabulary, because of its limits or for lack of training events
        pa.field("item_index", pa.int64(), nullable=False),
        pa.field("title", pa.string()),  # for people; null: unknown before the cut
        pa.field("category_id", pa.string()),  # null: unknown before the cut
        # category vocabulary indices from the root down to category_id; empty where category_id is null
        pa.field("category_path", pa.list_(pa.int64()), nullable=False),
        pa.field("is_available", pa.bool_()),  # null: unknown before the cut
        pa.field("price", pa.float32()),  # null: unknown before the cut
        pa.field("price_bucket", pa.int64(), nullable=False),  # 0: no price; 1 … : quantile buckets of training items
        pa.field("price_scaled", pa.float32(), nullable=False),  # log1p(price), mean 0, variance 1; 0: no price
        pa.field("property_values", pa.list_(pa.int64()), nullable=False),  # property-value vocabulary indices
        # training events of each kind, in the order of the manifest's event_kinds
        pa.field("event_counts", pa.list_(pa.int64()), nullable=False),
        pa.field("first_seen_ms", pa.int64()),  # first and last training event; null: none
        pa.field("last_seen_ms", pa.int64()),
    ]
)


def encode_catalogue(rows: pa.Table) -> bytes:
    """Encodes catalogue rows as a Parquet shard; equal rows give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(rows.cast(CATALOGUE_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def read_catalogue(paths: Sequence[str]) -> pa.Table:
    """Reads all shards as one table. Items of the vocabulary come first, by index; all others follow, by id.

    Raises:
      ContractError: the columns of a shard, their types or their order are wrong.
    """
    parts = []
    for path in paths:
        part = pq.read_table(io.BytesIO(storage.read_bytes(path)))
        if not part.schema.equals(CATALOGUE_SCHEMA):
            raise ContractError(f"{path} {_describe_difference(part.schema)}; prepare the dataset again")
        parts.append(part)
    return in_order(pa.concat_tables(parts) if parts else CATALOGUE_SCHEMA.empty_table())


def _describe_difference(schema: pa.Schema) -> str:
    """Describes how a schema differs from `CATALOGUE_SCHEMA`."""
    missing = [name for name in CATALOGUE_SCHEMA.names if name not in schema.names]
    if missing:
        return f"lacks the catalogue columns {', '.join(missing)}"
    unequal = [field.name for field in CATALOGUE_SCHEMA if not field.equals(schema.field(field.name))]
    if unequal:
        return f"has wrong types in the catalogue columns {', '.join(unequal)}"
    return f"has the columns {', '.join(schema.names)}, but a catalogue has {', '.join(CATALOGUE_SCHEMA.names)}"


def read_columns(paths: Sequence[str], names: Sequence[str]) -> pa.Table:
    """Reads the named columns of all shards, in the order of the shards."""
    parts = [pq.read_table(io.BytesIO(storage.read_bytes(path)), columns=list(names)) for path in paths]
    return pa.concat_tables(parts) if parts else CATALOGUE_SCHEMA.empty_table().select(list(names))


def total_events(rows: pa.Table) -> np.ndarray:
    """Returns each item's number of training events, all kinds together: [I] int64."""
    counts = rows["event_counts"].combine_chunks()
    before = np.append(0, np.cumsum(counts.flatten().to_numpy()))
    lengths = pc.list_value_length(counts).to_numpy()
    ends = np.cumsum(lengths)
    totals: np.ndarray = before[ends] - before[ends - lengths]
    return totals


def in_order(rows: pa.Table) -> pa.Table:
    """Sorts the rows: items of the vocabulary by `item_index`, then the others by `item_id`."""
    is_other = pc.less(rows["item_index"], 0)
    order = pc.sort_indices(
        rows.append_column("is_other", is_other),
        sort_keys=[("is_other", "ascending"), ("item_index", "ascending"), ("item_id", "ascending")],
    )
    return rows.take(order)
