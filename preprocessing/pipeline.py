"""The whole of `prepare`: CSV in, prepared dataset out.

events ─ read ─▶ timelines by partition ─ cuts ─ count ─▶ vocabularies ─ write ─▶ timeline shards
properties ─ read ─▶ as of the first cut ───── items ───────┘
                                      └─ assemble ─▶ catalogue as text ─ fit ─▶ transform ─ apply ─▶ catalogue
"""

import json
import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from common import storage
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.manifest import Manifest, SplitInfo, VocabularyInfo, write_manifest
from contract.schema import SplitMethod, Vocabulary
from preprocessing import catalogue, expectations, splits, timelines, transform, validation
from preprocessing import vocabularies as vocabulary
from preprocessing.beam import graphs, stages
from preprocessing.beam.graphs import Cuts, Job
from preprocessing.beam.stages import ALL_ITEMS, CATEGORY_VIEWS, ITEMS
from preprocessing.config import PrepareConfig, format_when
from preprocessing.sources import csv_files
from preprocessing.statistics import correlation, popularity, summaries
from preprocessing.workspace import Workspace, write_table

log = logging.getLogger(__name__)

MAX_PARTITIONS = 4096

_INTERMEDIATE = "intermediate"


def prepare(
    config: PrepareConfig, output: str, options: PipelineOptions | None = None, *, baseline: str | None = None
) -> dict[str, Any]:
    """Makes a prepared dataset at `output`, whole or not at all, and returns its summary.

    Args:
      config: what is made of which input.
      output: where nothing stands yet.
      options: Beam's.
      baseline: an earlier dataset of the same shop; one too different from it is not published.

    Raises:
      ContractError: the baseline is no dataset.
      ValueError: a setting or an input that cannot be used, or too different from the baseline; nothing is published.
      FileNotFoundError: an input glob matches nothing.
      FileExistsError: something stands at `output` already.
    """
    inputs = _list_inputs(config)
    if baseline:
        expectations.read_expectations(baseline)  # a wrong path is told before the first row is read
    options = options or PipelineOptions([])
    with storage.publish_directory(output, marker="manifest.json") as staging:
        # workers elsewhere see the store but no folder of this machine; without a manifest it holds no dataset
        root = staging if storage.is_local(output) or graphs.is_in_process(options) else output
        # a name of its own: workers of a job that was killed may still be writing
        work = Workspace(join(root, _INTERMEDIATE, uuid.uuid4().hex))
        job = Job(config, DatasetLayout(root), work, options)

        tree, tree_reading = _read_tree(job, inputs)  # waits for no graph: refused before the first
        reading, num_partitions = _read_events(job, inputs)
        cuts = splits.choose_cuts(reading.times, config.split) if config.split.method == SplitMethod.TIME else None
        events = graphs.count_ids(job, num_partitions, cuts)
        if config.split.method != SplitMethod.NONE:
            splits.check_counts(events.by_split.sum(1).tolist(), reading.times, cuts)
        properties, num_item_partitions = _read_properties(job, inputs, cuts)
        counts = [job.result(ITEMS), *([job.result("property-items")] if properties else [])]
        visitors = vocabulary.index_visitors(job.work, num_partitions, config.visitors, job.layout)
        counted = vocabulary.merge_counts(counts)
        items = vocabulary.index_items(job.work, num_item_partitions, counted, config.items, job.layout)
        write = stages.WriteTimelines(job.layout, job.work, cuts, config, num_partitions, visitors, items)
        # one core's worth of Python each: the catalogue and the graph need the vocabularies alone, not the shards
        with job.run_concurrently(lambda: graphs.write_timelines(job, num_partitions, write)) as writing:
            frequent = catalogue.choose_properties(job.result("properties"), config.properties) if properties else ()
            items_found = graphs.assemble_catalogue(job, num_item_partitions, properties is not None, frequent, tree)
            sizes = {Vocabulary.VISITORS: visitors, Vocabulary.ITEMS: items}
            for name in (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES):
                sizes[name] = vocabulary.index_words(name, job.result(name), getattr(config, name), job.layout)
            fitted = transform.TransformConfig(
                vocabularies=sizes,
                has_prices=items_found["priced_trained_items"] > 0,
                has_gaps=events.training_gaps > 0,
                num_buckets=config.num_buckets,
            )
            if writing.done():
                writing.result()  # a full disk is told before the next graph
            graphs.fit_transform(job, num_partitions, num_item_partitions, cuts, fitted)
            graphs.write_catalogue(job, num_item_partitions)
            graphs.complete_transform(job)
            shards = writing.result()

        splits_found = stages.split_infos(shards)
        description = {
            "events": summaries.describe_reading(reading) | summaries.describe_events(events, reading.cleaning),
            "items": popularity.describe_items(job.result(ALL_ITEMS)),
            "correlation": correlation.describe_correlation(shard.moments for shard in shards),
            "item_properties": summaries.describe_reading(properties) if properties else None,
            "catalogue": items_found
            | {
                "kept_properties": list(frequent),
                "views_by_category": popularity.describe_categories(job.result(CATEGORY_VIEWS), tree.paths),
            },
            "category_tree": summaries.describe_reading(tree_reading) | catalogue.describe_tree(tree),
        }
        _write_json(job.layout.statistics, description)
        expected = expectations.describe_expectations(description, root)
        expectations.write_expectations(expected, root)
        storage.remove(join(root, _INTERMEDIATE))
        storage.remove_partial(root)  # of a worker that was killed while it wrote into a folder that all share
        manifest = _describe(job, cuts, sizes, splits_found, {shard.name: shard.sha256 for shard in shards})
        checks = expectations.compare(baseline, expected, root, config.expectations) if baseline else []
        write_manifest(manifest, staging)
    compared = {check.name: check.verdict for check in checks}
    summary = _summary(output, config, cuts, sizes, splits_found, description) | {"compared": compared}
    _tell(summary)
    return summary


def _tell(summary: Mapping[str, Any]) -> None:
    """What was made, in three lines of the log."""
    left_out = ", ".join(f"{summary[name]:,} {name.replace('_', ' ')}" for name in ("duplicates", "robot_events"))
    rejected = sum(summary["rejected"].values())
    log.info("kept %d of %d events: %d rejected, %s", summary["events"], summary["rows"], rejected, left_out)
    log.info("rows: %s", ", ".join(f"{split['rows']:,} {name}" for name, split in summary["splits"].items()))
    words = ", ".join(f"{size:,} {name.replace('_', ' ')}" for name, size in summary["vocabularies"].items())
    log.info("made %s: %s", summary["dataset"], words)


@dataclass(frozen=True)
class _Input:
    """Byte ranges of one kind of file, none where none was given, and how many partitions its bytes make."""

    ranges: list[csv_files.ByteRange]
    num_partitions: int


def _list_inputs(config: PrepareConfig) -> dict[str, _Input]:
    """All inputs by kind, before the first is read: a wrong path or header is told at once."""

    def find(glob: str | None, columns: Sequence[str], optional: Sequence[str] = ()) -> _Input:
        if glob is None:
            return _Input([], 1)
        ranges, size = csv_files.list_byte_ranges(glob, columns, optional)
        return _Input(ranges, min(max(math.ceil(size / config.partition_bytes), 1), MAX_PARTITIONS))

    return {
        "events": find(config.events, timelines.EVENT_COLUMNS, timelines.OPTIONAL_EVENT_COLUMNS),
        "properties": find(config.item_properties, catalogue.PROPERTY_COLUMNS),
        "tree": find(config.category_tree, catalogue.TREE_COLUMNS),
    }


def _read_events(job: Job, inputs: Mapping[str, _Input]) -> tuple[summaries.ReadingSummary, int]:
    given = inputs["events"]
    reading = graphs.read_events(job, given.ranges, given.num_partitions)
    _check_rejects("event", reading, job.config)
    robots = reading.cleaning.robot_visitors
    validation.check_not_empty(reading.num_events, reading.rows, robots, job.config.events)
    for partition in set(range(given.num_partitions)) - reading.partitions:
        storage.write_bytes(job.work.timelines(partition), timelines.encode_timelines(timelines.empty_timelines()))
    log.info("read %d event rows into %d partitions", reading.rows, given.num_partitions)
    return reading, given.num_partitions


def _read_tree(job: Job, inputs: Mapping[str, _Input]) -> tuple[catalogue.CategoryTree, summaries.ReadingSummary]:
    chunks = [(source, chunk) for source in inputs["tree"].ranges for chunk in csv_files.read_chunks(source)]
    tree, reading, rejects = catalogue.read_tree(chunk for _, chunk in chunks)
    _check_rejects("category tree", reading, job.config)
    if reading.rejects:
        kept = [csv_files.keep_first(part) for part in rejects]
        stages.WriteRejects(job.layout.rejects)((stages.reject_name("category-tree", chunks[0][0]), kept))
    return tree, reading


def _read_properties(job: Job, inputs: Mapping[str, _Input], cuts: Cuts) -> tuple[summaries.ReadingSummary | None, int]:
    given = inputs["properties"]
    if not given.ranges:
        return None, given.num_partitions
    # only a split by time has a future to keep out
    reading = graphs.read_properties(job, given.ranges, given.num_partitions, cuts[0] if cuts else math.inf)
    _check_rejects("item property", reading, job.config)
    if not reading.partitions:
        before = f" before the first cut, {format_when(cuts[0])}" if cuts else ""
        log.warning(
            "no item property was told%s: no item has a category, a price or other; give earlier rows, or cut later",
            before,
        )
    for partition in set(range(given.num_partitions)) - reading.partitions:
        write_table(job.work.properties(partition), catalogue.no_properties())
    log.info("read %d item property rows into %d partitions", reading.rows, given.num_partitions)
    return reading, given.num_partitions


def _check_rejects(what: str, reading: summaries.ReadingSummary, config: PrepareConfig) -> None:
    reasons = reading.reject_reasons()
    validation.check_reject_share(what, reading.rows, reasons, config.max_reject_share)
    if reasons:
        counts = ", ".join(f"{name}: {reason.count}" for name, reason in sorted(reasons.items()))
        log.warning("%s rows rejected, see rejects/: %s", what, counts)


def _write_json(path: str, value: Mapping[str, Any]) -> None:
    storage.write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _describe(
    job: Job,
    cuts: Cuts,
    sizes: Mapping[Vocabulary, VocabularyInfo],
    splits_found: Mapping[Any, SplitInfo],
    checksums: Mapping[str, str],
) -> Manifest:
    """The manifest of all files that stand below the dataset's root."""
    names = [name for name in storage.list_files(job.layout.root) if name != storage.CLAIM]
    return Manifest(
        split_method=job.config.split.method,
        validation_from_ms=cuts[0] if cuts else None,
        test_from_ms=cuts[1] if cuts else None,
        vocabularies=sizes,
        splits=splits_found,
        config=asdict(job.config),
        files={name: checksums.get(name) or storage.sha256(join(job.layout.root, name)) for name in names},
    )


def _summary(
    output: str,
    config: PrepareConfig,
    cuts: Cuts,
    sizes: Mapping[Vocabulary, VocabularyInfo],
    splits_found: Mapping[Any, SplitInfo],
    description: Mapping[str, Any],
) -> dict[str, Any]:
    events = description["events"]
    left_out = ("rejected", "blank_lines", "duplicates", "robot_visitors", "robot_events")
    return {
        "dataset": output,
        "rows": events["rows"],
        "events": events["events"],
        **{name: events[name] for name in left_out},
        "split": config.split.method,
        "validation_from": format_when(cuts[0]) if cuts else None,
        "test_from": format_when(cuts[1]) if cuts else None,
        "splits": {name: {"rows": i.target_rows, "visitors": i.visitors} for name, i in splits_found.items()},
        "vocabularies": {name: info.size for name, info in sizes.items()},
        "catalogue_items": description["catalogue"]["items"],
    }
