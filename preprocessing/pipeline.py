"""The pipeline of `prepare`, from the input files to the prepared dataset.

events ──────▶ timelines by partition ─▶ cuts ─▶ counts ─▶ vocabularies ─▶ timeline shards
properties ──▶ values as of the first cut ───────────────┘      │
tree ────────────────────────────────────────────────────▶ catalogue as text ─▶ transform graph ─▶ catalogue shards

The cuts are the times at which validation and test start.
"""

import uuid
from dataclasses import replace
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from common import storage
from common.json_files import encode_json
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.manifest import VocabularyInfo, write_manifest
from contract.schema import Vocabulary
from preprocessing import catalogue, description, expectations, reading, splits, vocabularies
from preprocessing.beam import graphs
from preprocessing.beam.job import Job, is_in_process
from preprocessing.config import PrepareConfig
from preprocessing.description import DatasetResults
from preprocessing.inputs import Inputs, list_inputs
from preprocessing.transform import TransformConfig
from preprocessing.workspace import Workspace

_INTERMEDIATE = "intermediate"


def prepare(
    config: PrepareConfig, output: str, options: PipelineOptions | None = None, *, baseline: str | None = None
) -> dict[str, Any]:
    """Prepares a dataset, publishes it at `output`, and returns its summary.

    Args:
      config: input and settings.
      output: path or URI of the new dataset. It must not exist, or must be empty.
      options: options of Beam; None: Beam runs in this process.
      baseline: path or URI of an earlier dataset to compare with. If the difference is too large, nothing is published.

    Raises:
      ContractError: the baseline is not a dataset, or an earlier version prepared it.
      ValueError: a setting or an input is invalid, or the dataset differs too much from the baseline.
      FileNotFoundError: an input glob matches no file.
      FileExistsError: `output` is not empty.
    """
    inputs = list_inputs(config)
    config = replace(config, kinds=inputs.mapping.kinds)
    if baseline:
        expectations.read_expectations(baseline)  # reports a wrong path before any row is read
    with storage.publish_directory(output, marker="manifest.json") as staging:
        job = _make_job(config, output, staging, options or PipelineOptions([]))
        results = _run_graphs(job, inputs)

        root = job.layout.root
        statistics = description.describe_statistics(results)
        storage.write_bytes(job.layout.statistics, encode_json(statistics, ensure_ascii=False))
        expected = expectations.describe_expectations(statistics, root)
        expectations.write_expectations(expected, root)
        storage.check_ownership(output)
        storage.remove(join(root, _INTERMEDIATE))
        storage.remove_partial(root)  # a worker that was killed may have left half a file
        manifest = description.make_manifest(job, results)
        checks = expectations.compare(baseline, expected, root, config.expectations) if baseline else []
        write_manifest(manifest, staging)
    summary = description.summarize(output, manifest, statistics)
    description.log_summary(summary)
    return summary | {"compared": {check.name: check.verdict for check in checks}}


def _make_job(config: PrepareConfig, output: str, staging: str, options: PipelineOptions) -> Job:
    # remote workers can access the store but not local folders; without a manifest, `output` is not yet a dataset
    root = staging if storage.is_local(output) or is_in_process(options) else output
    # a unique name, because workers of a killed job may still be writing
    work = Workspace(join(root, _INTERMEDIATE, uuid.uuid4().hex))
    return Job(config, DatasetLayout(root), work, options)


def _run_graphs(job: Job, inputs: Inputs) -> DatasetResults:
    config, num_partitions = job.config, inputs.events.num_partitions
    num_item_partitions = inputs.properties.num_partitions

    # read: the tree first, because it needs no graph
    tree = reading.read_tree(job, inputs.tree)
    events = reading.read_events(job, inputs.events, inputs.mapping)

    # split, then read only the properties that were known at the first cut
    cuts = splits.choose_cuts(events.times, config.split)
    counts = graphs.count_ids(job, num_partitions, cuts)
    splits.check_splits(counts.events.by_split.sum(1).tolist(), events.times, cuts, config.split)
    properties = reading.read_properties(job, inputs.properties, cuts, inputs.table)
    if properties:
        reading.check_join(counts.trained_items, properties.items)

    # index: vocabularies of visitors and items
    item_counts = vocabularies.merge_counts([counts.trained_items, properties.items if properties else b""])
    visitors = vocabularies.index_visitors(job.work, num_partitions, config.visitors, job.layout)
    items = vocabularies.index_items(job.work, num_item_partitions, item_counts, config.items, job.layout)

    # write the timelines and, concurrently, the catalogue: each keeps one core busy, and neither needs the other
    with job.run_concurrently(lambda: graphs.write_timelines(job, num_partitions, cuts, visitors, items)) as writing:
        frequent = catalogue.choose_properties(properties.properties if properties else b"", config.properties)
        assembled = graphs.assemble_catalogue(job, num_item_partitions, properties is not None, frequent, tree.tree)
        sizes = {Vocabulary.VISITORS: visitors, Vocabulary.ITEMS: items} | _index_words(job, assembled)
        if writing.done():
            writing.result()  # raises its error, such as a full disk, before the next graph starts
        fitted = _configure_transform(config, sizes, counts, assembled)
        graphs.fit_transform(job, counts.events.training_gaps, assembled.prices, fitted)
        graphs.write_catalogue(job, num_item_partitions)
        graphs.complete_transform(job)
        shards = writing.result()

    return DatasetResults(
        kinds=config.kinds,
        reading=events,
        tree=tree,
        cuts=cuts,
        counts=counts,
        properties=properties,
        kept_properties=frequent,
        items=assembled,
        vocabularies=sizes,
        shards=shards,
    )


def _index_words(job: Job, items: graphs.CatalogueCounts) -> dict[Vocabulary, VocabularyInfo]:
    config, layout = job.config, job.layout
    categories, values = Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES
    return {
        categories: vocabularies.index_words(categories, items.categories, config.categories, layout),
        values: vocabularies.index_words(values, items.property_values, config.property_values, layout),
    }


def _configure_transform(
    config: PrepareConfig,
    sizes: dict[Vocabulary, VocabularyInfo],
    counts: graphs.IdCounts,
    items: graphs.CatalogueCounts,
) -> TransformConfig:
    return TransformConfig(
        vocabularies=sizes,
        event_kinds=config.kinds.names,
        has_prices=items.description["priced_trained_items"] > 0,
        has_gaps=bool(counts.events.training_gaps.counts.sum()),
        num_buckets=config.num_buckets,
    )
