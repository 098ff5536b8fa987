"""Writes a shop's files in Retailrocket's format: the event log, the item properties and the category tree."""

import logging
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from common import storage
from common.progress import make_bar
from common.storage.paths import join
from contract.schema import DEFAULT_KINDS
from preprocessing.synthetic.journeys import TRANSACTION
from preprocessing.synthetic.scale import Scale, SynthesisConfig
from preprocessing.synthetic.shop import Shop, generate_shop

log = logging.getLogger(__name__)

_EVENTS, _TREE = "events.csv", "category_tree.csv"
_PROPERTIES = ("item_properties_part1.csv", "item_properties_part2.csv")
_FIRST_PART_ROWS_PER_ITEM = 10_999_999 / 417_053
_DUPLICATES = 460
_WRITE_OPTIONS = pa_csv.WriteOptions(include_header=False, quoting_style="none", batch_size=1 << 16)
_DAY_MS = 86_400_000
_DISORDER_MS = _DAY_MS // 4  # maximum displacement of a row within its day


def synthesize(config: SynthesisConfig, output: str) -> dict[str, Any]:
    """Generates a shop and writes its files to a new directory, all or none.

    Returns:
      The paths of the files, the seed, and the numbers of visitors, events, items, property rows and categories.

    Raises:
      FileExistsError: `output` is not empty.
    """
    with storage.publish_directory(output) as directory:
        shop = generate_shop(config)
        events = _event_table(shop)
        for name, table in ((_EVENTS, events), (_TREE, _tree_table(shop))):
            with open(join(directory, name), "wb") as file:
                _append(file, table)
        property_rows = _write_properties(shop, *(join(directory, name) for name in _PROPERTIES))
    log.info(
        "wrote a shop with %d visitors, %d events, %d property rows and %d categories to %s",
        config.visitors,
        len(events),
        property_rows,
        len(shop.tree.category_id),
        output,
    )
    return {
        "output": output,
        "events": join(output, _EVENTS),
        "item_properties": join(output, "item_properties_part*.csv"),
        "category_tree": join(output, _TREE),
        "seed": config.seed,
        "visitors": config.visitors,
        "event_rows": {kind: pc.sum(pc.equal(events["event"], kind)).as_py() for kind in DEFAULT_KINDS},
        "items_in_events": pc.count_distinct(events["itemid"]).as_py(),
        "items_with_properties": len(shop.catalogue.listed_id),
        "property_rows": property_rows,
        "categories": len(shop.tree.category_id),
    }


def _event_table(shop: Shop) -> pa.Table:
    """Builds the event log, with a few duplicated rows.

    As in Retailrocket's log, days are in random order, and rows are moved by up to six hours within a day.
    """
    interests, events, random = shop.interests, shop.events, shop.row_generator()
    timestamp_ms = shop.times.timestamp_ms
    rows = np.arange(len(timestamp_ms))
    rows = np.r_[rows, random.choice(rows, Scale(shop.config.visitors).count(_DUPLICATES))]
    day = timestamp_ms[rows] // _DAY_MS
    day_order = random.permutation(int(day.max() - day.min()) + 1)
    position = day_order[day - day.min()] * 2 * _DAY_MS + timestamp_ms[rows] % _DAY_MS
    rows = rows[np.argsort(position + random.integers(0, _DISORDER_MS, len(rows)), kind="stable")]

    interest, kind = events.interest[rows], events.kind[rows]
    transaction_id = random.permutation(int(interests.order.max()) + 1)[interests.order[interest]]
    return pa.table(
        {
            "timestamp": timestamp_ms[rows],
            "visitorid": interests.visitor[interest],
            "event": pa.array(DEFAULT_KINDS).take(pa.array(kind)),
            "itemid": shop.catalogue.item_id[shop.item[interest]],
            "transactionid": pa.array(transaction_id, mask=kind != TRANSACTION),
        }
    )


def _tree_table(shop: Shop) -> pa.Table:
    tree, random = shop.tree, shop.row_generator()
    nodes = random.permutation(len(tree.category_id))
    parent = tree.parent[nodes]
    return pa.table(
        {
            "categoryid": tree.category_id[nodes],
            "parentid": pa.array(tree.category_id[parent], mask=parent < 0),
        }
    )


def _write_properties(shop: Shop, first_path: str, second_path: str) -> int:
    """Writes all property rows to two files, and returns the number of rows.

    The first file has a limit of rows, in proportion to the number of items. The second file has the other rows.
    """
    boundary = round(len(shop.catalogue.listed_id) * _FIRST_PART_ROWS_PER_ITEM)
    num_rows = 0
    bar = make_bar(len(shop.catalogue.listed_id), "items", title="properties")
    with open(first_path, "wb") as first, open(second_path, "wb") as second, bar:
        for table in shop.properties():
            cut = min(max(boundary - num_rows, 0), len(table))
            _append(first, table.slice(0, cut))
            _append(second, table.slice(cut))
            num_rows += len(table)
            bar.update(pc.count_distinct(table["itemid"]).as_py())  # a table has all rows of its items
    return num_rows


def _append(file: BinaryIO, table: pa.Table) -> None:
    """Appends rows to a CSV file, after a header if the file is empty. A null becomes an empty field."""
    if not file.tell():  # not by pyarrow, which would quote the names
        file.write((",".join(table.column_names) + "\n").encode())
    pa_csv.write_csv(table, file, _WRITE_OPTIONS)
