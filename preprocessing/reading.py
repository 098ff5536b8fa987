"""Reads the events, the category tree and the item properties or item table. Fails if too many rows are invalid."""

import logging
import math

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing import catalogue, timelines, validation
from preprocessing.beam import graphs, stages
from preprocessing.beam.graphs import PropertyCounts
from preprocessing.beam.job import Job
from preprocessing.columns import EncodedTable, decode_columns, sort_by_count
from preprocessing.config import PrepareConfig, PropertyConfig, format_when
from preprocessing.events import EventMapping
from preprocessing.inputs import Input
from preprocessing.item_table import ItemTableMapping
from preprocessing.sources.source import read_batches
from preprocessing.splits import Cuts
from preprocessing.statistics.summaries import ReadingSummary
from preprocessing.workspace import write_table

log = logging.getLogger(__name__)

_MOST_NAMES = 10  # in a message


def read_events(job: Job, events: Input, mapping: EventMapping) -> ReadingSummary:
    """Reads the event log and writes the timelines of each visitor partition.

    Raises:
      ValueError: too many rows are invalid, or there is no usable event.
    """
    summary = graphs.read_events(job, events.parts, events.num_partitions, mapping)
    _check_rejects("event", summary, job.config)
    robots = summary.cleaning.robot_visitors
    validation.check_not_empty(summary.num_events, summary.rows, robots, job.config.events)
    for partition in set(range(events.num_partitions)) - summary.partitions:
        stages.write_timelines(job.work, partition, timelines.empty_timelines())
    log.info("read %d event rows into %d partitions", summary.rows, events.num_partitions)
    return summary


def read_tree(job: Job, tree: Input) -> catalogue.TreeReading:
    """Reads the category tree, without Beam.

    Raises:
      ValueError: too many rows are invalid.
    """
    reading = catalogue.read_tree(read_batches(tree.parts))
    _check_rejects("category tree", reading.summary, job.config)
    if reading.summary.rejects:
        name = stages.name_reject_file("category-tree", tree.parts[0])
        stages.WriteRejects(job.layout.rejects)((name, [rejects.limit() for rejects in reading.rejects]))
    return reading


def read_properties(
    job: Job, properties: Input, cuts: Cuts | None, table: ItemTableMapping | None
) -> PropertyCounts | None:
    """Reads the item properties or the item table; returns None if there is neither.

    Writes the latest properties of each item partition.

    Args:
      properties: files of the item properties or of the item table.
      cuts: item properties at or after the start of validation are ignored. None (no split by time): all are used.
      table: how to read the item table; None: `properties` are item properties.

    Raises:
      ValueError: too many rows are invalid.
    """
    if not properties.parts:
        return None
    # only a split by time keeps later properties out of training
    until_ms = cuts.validation_from_ms if cuts else math.inf
    counts = graphs.read_properties(job, properties.parts, properties.num_partitions, until_ms, table)
    summary = counts.reading
    _check_rejects("item property", summary, job.config)
    if not summary.partitions:
        _warn_of_no_properties(cuts if table is None else None)
    elif table is None:
        check_property_names(counts.properties, job.config.properties)
    else:
        warn_of_repeated_items(summary.rows - summary.rejects.total(), counts.items)
    for partition in set(range(properties.num_partitions)) - summary.partitions:
        write_table(job.work.properties(partition), catalogue.empty_properties())
    log.info("read %d item property rows into %d partitions", summary.rows, properties.num_partitions)
    return counts


def _warn_of_no_properties(cuts: Cuts | None) -> None:
    if cuts:
        log.warning(
            "all item properties are later than the start of validation (%s), so no item has a category or price; "
            "provide earlier item properties, or a later --validation-from",
            format_when(cuts.validation_from_ms),
        )
    else:
        log.warning("no item properties were found, so no item has a category or price; check the files of the items")


def warn_of_repeated_items(num_rows: int, items: EncodedTable) -> None:
    """Warns if an item table has more valid rows than items.

    Args:
      num_rows: number of valid rows.
      items: the ids of all items with a property, in the column id.
    """
    num_items = len(decode_columns(items))
    if num_rows > num_items:
        log.warning(
            "the item table has %d rows, but describes %d items; the other rows repeat an id or have only an id. For "
            "an item with several rows, the last known value of each property is used",
            num_rows,
            num_items,
        )


def check_property_names(counts: EncodedTable, config: PropertyConfig) -> None:
    """Checks that each property named in `config` exists.

    If a name is the default, a missing property only causes a warning.

    Args:
      counts: number of items per property, in the columns id and count.
      config: names of the properties with a role, such as the price.

    Raises:
      ValueError: a property is missing, and its name is not the default.
    """
    found = sort_by_count(decode_columns(counts))["id"].to_pylist()
    names = {role: name for role, name in vars(config).items() if isinstance(name, str) and name not in found}
    given = {role: name for role, name in names.items() if name != getattr(PropertyConfig(), role)}
    if given:
        wrong = " and ".join(f"properties.{role} is `{name}`" for role, name in given.items())
        listed = ", ".join(f"`{name}`" for name in found[:_MOST_NAMES]) + ", …" * (len(found) > _MOST_NAMES)
        raise ValueError(f"{wrong}, but no item has such a property; use one of the properties found: {listed}")
    if missing := {f"properties.{role}": f"{role} (`{name}`)" for role, name in names.items() if role != "title"}:
        log.warning(
            "no item property gives the %s, so all items lack it; if the shop uses another name for the property, "
            "set %s",
            " or the ".join(missing.values()),
            " or ".join(missing),
        )


def check_join(events: EncodedTable, items: EncodedTable, *, warn_share: float = 0.5) -> None:
    """Checks that the event log and the item properties use the same item ids.

    Args:
      events: training events per item, in the columns id and count.
      items: the ids of all items that have properties, in the column id.
      warn_share: a warning is logged if items with properties have less than this share of the events.

    Raises:
      ValueError: no event has an item with properties.
    """
    if not events or not items:
        return
    seen, described = decode_columns(events), decode_columns(items)["id"].combine_chunks()
    is_described = pc.is_in(seen["id"].combine_chunks(), value_set=described)
    total = pc.sum(seen["count"]).as_py() or 0
    joined = pc.sum(seen.filter(is_described)["count"]).as_py() or 0
    if not total or joined >= warn_share * total:
        return
    others = seen["id"].combine_chunks().filter(pc.invert(is_described))
    ids = (
        f"item ids such as {_examples(others)}, but the properties or the table have ids such as {_examples(described)}"
    )
    if not joined:
        raise ValueError(
            "the item properties or the item table contain no item of the training events: the events have "
            f"{ids}; use the same ids in all files, or leave out the item properties or the item table"
        )
    log.warning(
        "the item properties or the item table contain the items of only %.1f%% of the training events; the items of "
        "the other events have no category, price or title. The other events have %s; use the same ids in all files",
        100 * joined / total,
        ids,
    )


def _examples(ids: pa.Array) -> str:
    return ", ".join(f"`{value.as_py()}`" for value in ids[:3])


def _check_rejects(name: str, summary: ReadingSummary, config: PrepareConfig) -> None:
    reasons = summary.reject_reasons()
    validation.check_reject_share(name, summary.rows, reasons, config.max_reject_share)
    if reasons:
        counts = ", ".join(f"{text}: {reason.count}" for text, reason in sorted(reasons.items()))
        log.warning("rejected invalid rows of %s (%s); rejects/ lists them", name, counts)
