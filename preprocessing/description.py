"""Describes a finished dataset in its statistics, its manifest, a summary for the user, and the log."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from common import storage
from common.storage.paths import join
from contract.manifest import Manifest, VocabularyInfo
from contract.schema import Vocabulary
from preprocessing import catalogue
from preprocessing.beam.graphs import CatalogueCounts, IdCounts, PropertyCounts
from preprocessing.beam.job import Job
from preprocessing.beam.stages import WrittenShard, summarize_splits
from preprocessing.config import format_when
from preprocessing.events import DROPPED_KIND, NOT_MET
from preprocessing.kinds import KindConfig
from preprocessing.splits import Cuts
from preprocessing.statistics import correlation, popularity, summaries

log = logging.getLogger(__name__)

_WARN_SHARE = 0.01
"""A warning is logged for each reason that excludes more than this share of the rows."""


@dataclass(frozen=True, kw_only=True)
class DatasetResults:
    """Results of all steps of `prepare`."""

    kinds: KindConfig
    """The event kinds of the log."""
    reading: summaries.ReadingSummary
    """Counts of rows and rejects of the event log."""
    tree: catalogue.TreeReading
    """The category tree."""
    cuts: Cuts | None
    """Times at which validation and test start, in a split by time; None for other methods."""
    counts: IdCounts
    """Statistics of events and items."""
    properties: PropertyCounts | None
    """Results of reading the item properties; None if the shop has none."""
    kept_properties: tuple[str, ...]
    """Names of the properties that become property values. Properties with a role, such as the price, do not."""
    items: CatalogueCounts
    """Counts of the catalogue."""
    vocabularies: Mapping[Vocabulary, VocabularyInfo]
    """Sizes of the vocabularies."""
    shards: list[WrittenShard]
    """The timeline shards."""


def describe_statistics(results: DatasetResults) -> dict[str, Any]:
    """Returns the content of `statistics.json`."""
    reading, events, tree, kinds = results.reading, results.counts.events, results.tree, results.kinds.names
    return {
        "events": summaries.describe_reading(reading) | summaries.describe_events(events, reading.cleaning, kinds),
        "items": popularity.describe_items(results.counts.all_items, kinds),
        "correlation": correlation.describe_correlation(shard.moments for shard in results.shards),
        "item_properties": summaries.describe_reading(results.properties.reading) if results.properties else None,
        "catalogue": results.items.description
        | {
            "kept_properties": list(results.kept_properties),
            "events_by_category": popularity.describe_categories(results.items.category_events, tree.tree.paths),
        },
        "category_tree": summaries.describe_reading(tree.summary) | catalogue.describe_tree(tree.tree),
    }


def make_manifest(job: Job, results: DatasetResults) -> Manifest:
    """Makes the manifest, with the checksum of each file."""
    names = [name for name in storage.list_files(job.layout.root) if name != storage.CLAIM]
    checksums = {shard.name: shard.sha256 for shard in results.shards}
    return Manifest(
        event_kinds=results.kinds.names,
        event_weights=results.kinds.weights,
        split_method=job.config.split.method,
        validation_from_ms=results.cuts.validation_from_ms if results.cuts else None,
        test_from_ms=results.cuts.test_from_ms if results.cuts else None,
        vocabularies=results.vocabularies,
        splits=summarize_splits(results.shards),
        config=asdict(job.config),
        files={name: checksums.get(name) or storage.sha256(join(job.layout.root, name)) for name in names},
    )


def summarize(output: str, manifest: Manifest, statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a summary of the dataset for the user, as JSON values."""
    events = statistics["events"]
    cuts = {"validation_from": manifest.validation_from_ms, "test_from": manifest.test_from_ms}
    names = ("rows", "events", "rejected", "filtered", "blank_lines", "duplicates", "robot_visitors", "robot_events")
    return {
        "dataset": output,
        **{name: events[name] for name in names},
        "split": manifest.split_method,
        **{name: format_when(cut) if cut is not None else None for name, cut in cuts.items()},
        "splits": {name: {"rows": i.target_rows, "visitors": i.visitors} for name, i in manifest.splits.items()},
        "vocabularies": {name: info.size for name, info in manifest.vocabularies.items()},
        "catalogue_items": statistics["catalogue"]["items"],
    }


def excluded_rows(summary: Mapping[str, Any]) -> dict[str, int]:
    """Returns the number of excluded rows, by reason."""
    return {
        **{f"they are invalid ({reason})": count for reason, count in summary["rejected"].items()},
        **{_describe_filter(reason): count for reason, count in summary["filtered"].items()},
        "they equal an earlier row in all columns; keep_repeats=true keeps them": summary["duplicates"],
        "their visitors are robots, with more than --max-events-per-day events on one day": summary["robot_events"],
    }


def _describe_filter(reason: str) -> str:
    if reason.startswith(NOT_MET):
        return f"they do not meet {reason.removeprefix(NOT_MET)}"
    if reason.startswith(DROPPED_KIND):
        return f"their kind {reason.removeprefix(DROPPED_KIND) or '(empty)'} is dropped"
    return "their list of events is empty"


def log_summary(summary: Mapping[str, Any]) -> None:
    """Logs the summary of a dataset. Warns about each reason that excludes more than 1% of the rows."""
    excluded = ", ".join(f"{summary[name]:,} {name.replace('_', ' ')}" for name in ("duplicates", "robot_events"))
    rejected, filtered = (sum(summary[name].values()) for name in ("rejected", "filtered"))
    log.info(
        "kept %d of %d events: %d rejected, %d filtered, %s",
        summary["events"],
        summary["rows"],
        rejected,
        filtered,
        excluded,
    )
    for reason, count in excluded_rows(summary).items():
        if count > _WARN_SHARE * summary["rows"]:
            share = f"{count / summary['rows']:.1%} of the rows ({count:,})"
            log.warning("%s are excluded: %s", share, reason)
    log.info(
        "events per split: %s", ", ".join(f"{split['rows']:,} {name}" for name, split in summary["splits"].items())
    )
    sizes = ", ".join(f"{size:,} {name.replace('_', ' ')}" for name, size in summary["vocabularies"].items())
    log.info("prepared %s: %s", summary["dataset"], sizes)
