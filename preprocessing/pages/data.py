"""Draws the Data page of the report."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from common import storage
from common.report.page import Page
from common.report.parts import Statistics
from contract.layout import DatasetLayout
from contract.manifest import Manifest, read_manifest
from preprocessing.pages.events import events_section
from preprocessing.pages.items import items_section
from preprocessing.pages.reading import comparison_section, reading_section
from preprocessing.pages.splits import split_section
from preprocessing.pages.visitors import visitors_section

_MS_PER_DAY = 86_400_000


def read_data_page(root: str) -> Page:
    """Builds the Data page of the dataset at `root`.

    Raises:
      ContractError: there is no dataset.
      FileNotFoundError: the dataset has no statistics.
      KeyError: an earlier version wrote the statistics, and a value is missing.
    """
    layout, manifest = DatasetLayout(root), read_manifest(root)
    statistics = json.loads(storage.read_bytes(layout.statistics))
    comparison = json.loads(storage.read_bytes(layout.comparison)) if storage.exists(layout.comparison) else None
    return data_page(root.rstrip("/").rpartition("/")[2], statistics, manifest, comparison)


def data_page(
    name: str, statistics: Statistics, manifest: Manifest, comparison: Mapping[str, Any] | None = None
) -> Page:
    """Builds the Data page. `statistics` and `comparison` are the contents of the JSON files of these names."""
    return Page(
        key="data",
        title="Data",
        subtitle=f"Dataset {name}, split {_describe_split(manifest)}",
        sections=[
            reading_section(statistics),
            *([comparison_section(comparison)] if comparison else []),
            events_section(statistics, _marks(manifest)),
            items_section(statistics),
            visitors_section(statistics),
            split_section(statistics, manifest.split_method),
        ],
    )


def _describe_split(manifest: Manifest) -> str:
    cuts = (manifest.validation_from_ms, manifest.test_from_ms)
    if None in cuts:
        return f"by method {manifest.split_method}"
    first, second = (_format(cut) for cut in cuts if cut is not None)
    return f"by time: validation from {first}, test from {second} (UTC)"


def _format(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _marks(manifest: Manifest) -> list[tuple[str, float]]:
    """Returns the starts of validation and test in a split by time, as (name of the split, days since 1970)."""
    cuts = (("validation", manifest.validation_from_ms), ("test", manifest.test_from_ms))
    return [(name, cut / _MS_PER_DAY) for name, cut in cuts if cut is not None]
