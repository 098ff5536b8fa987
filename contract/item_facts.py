"""Schema of the item facts: availability and category, which decide whether an item may be recommended.

The facts come from the dataset's catalogue or from a newer item table.
"""

import pyarrow as pa

ITEM_FACTS_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),  # distinct
        pa.field("is_available", pa.bool_()),  # null: unknown
        pa.field("category_id", pa.string()),  # null: unknown
        # ids from the root down to category_id; null: an id that is not in the category vocabulary
        pa.field("category_path", pa.list_(pa.string()), nullable=False),
    ]
)
