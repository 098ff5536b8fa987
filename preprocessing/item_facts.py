"""Reads the availability and the category of items from an item table, to decide which items an export recommends."""

import logging
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from common.settings import from_json
from preprocessing.columns import encode_strings, find_last_rows
from preprocessing.config import ItemTableConfig, PropertyConfig
from preprocessing.item_table import ItemTableMapping, parse_item_facts
from preprocessing.shop import read_shop
from preprocessing.sources.formats import ITEM_FACTS_ADVICE, open_files
from preprocessing.sources.source import read_batches
from preprocessing.statistics.summaries import ReadingSummary, merge_readings, summarize_reading

log = logging.getLogger(__name__)

COLUMNS = ("id", "availability", "category")
"""The roles of the columns that are read from the item table."""

_MAX_REJECT_SHARE = 0.01
_EXAMPLES = 3


def read_item_facts(
    items: str | None = None, shop: str | None = None, columns: Mapping[str, str] | None = None
) -> pa.Table:
    """Reads the availability and the category of each item from an item table.

    If an item has several rows, the last row is used.

    Args:
      items: glob of the table; None: `item_table.files` of the shop.toml.
      shop: path of a shop.toml with a section `item_table`; None: the defaults of `ItemTableConfig`.
      columns: names of columns by role (one of `COLUMNS`), instead of those in the shop.toml. If each level of the
        category path has a column, these columns are separated by commas, from the root down.

    Returns:
      A table with the schema `ITEM_FACTS_SCHEMA`, one row per item.

    Raises:
      ValueError: no table is given; a role or a column does not exist; neither the availability nor the category has a
        column; no row is valid; more than 1% of the rows are invalid; or all words for the availability are unknown.
      FileNotFoundError: no file matches the glob.
    """
    files, config = _make_config(items, shop, columns or {})
    mapping = ItemTableMapping(config, PropertyConfig())
    parts, _ = open_files(files, config.format, mapping.paths, advice=ITEM_FACTS_ADVICE, has_line_breaks=True)
    parsed, summaries = [], []
    for batch in read_batches(parts):
        parsed.append(parse_item_facts(batch, mapping))
        summaries.append(summarize_reading(len(parsed[-1].facts), batch.num_blank, parsed[-1].rejects))
    if not sum(len(part.facts) for part in parsed):
        raise ValueError(f"{files} has no usable row; check the path, and that `{config.id}` is the column with ids")
    _check_rejects(files, merge_readings(summaries))
    facts = pa.concat_tables([part.facts for part in parsed])
    _check_words(files, pa.concat_arrays([part.unclear for part in parsed]), facts, str(config.availability))
    return facts.take(pa.array(find_last_rows([encode_strings(facts["item_id"])[0]])))


def _make_config(items: str | None, shop: str | None, columns: Mapping[str, str]) -> tuple[str, ItemTableConfig]:
    values = read_shop(shop).get("item_table", {}) if shop else {}
    config = from_json(ItemTableConfig, values)
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise ValueError(
            f"--map has the unknown names {', '.join(unknown)}; it must have the form NAME=COLUMN with one of the "
            f"names {', '.join(COLUMNS)}"
        )
    files = items or config.files
    if files is None:
        raise ValueError(
            f"{shop} has no item_table.files; give the table with --items FILE, or prepare a newer dataset and give it "
            "with --data"
        )
    category = tuple(columns["category"].split(",")) if "category" in columns else config.category
    config = replace(
        config,
        id=columns.get("id", config.id),
        availability=columns.get("availability", config.availability),
        category=category,
        title=None,
        price=None,
        attributes=(),
    )
    if config.availability is None and not config.category:
        raise ValueError(
            "neither the availability nor the category of items is mapped to a column; map at least one of them with "
            "--map availability=COLUMN or --map category=COLUMN"
        )
    return files, config


def _check_rejects(files: str, reading: ReadingSummary) -> None:
    """Warns about invalid rows. Raises ValueError if more than 1% of the rows are invalid."""
    reasons = reading.reject_reasons()
    num_invalid = sum(reason.count for reason in reasons.values())
    if not num_invalid:
        return
    examples = "; ".join(f"{text}: {reason.count:,} (first: {reason.first})" for text, reason in reasons.items())
    message = f"{num_invalid:,} of {reading.rows:,} rows of {files} are invalid: {examples}"
    if num_invalid > _MAX_REJECT_SHARE * reading.rows:
        raise ValueError(f"{message}; correct these rows")
    log.warning("%s; skipping them", message)


def _check_words(files: str, unclear: pa.Array, facts: pa.Table, column: str) -> None:
    """Warns about unknown words in the availability column. Raises ValueError if no row has a known word."""
    if not len(unclear):
        return
    words = ", ".join(repr(word) for word in unclear.unique()[:_EXAMPLES].to_pylist())
    message = (
        f"{len(unclear):,} rows of {files} have an unknown word in `{column}`, such as {words} (known words: 1 or 0, "
        "true or false, yes or no, in stock or out of stock)"
    )
    if facts["is_available"].null_count == len(facts):
        raise ValueError(f"{message}; map the right column with --map availability=COLUMN")
    log.warning("%s; these items are treated as available", message)
