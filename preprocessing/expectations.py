"""Compares a dataset with its baseline, an earlier dataset of the same shop.

Shapes: K event kinds, R reasons.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common import storage
from common.errors import ContractError
from common.json_files import encode_json
from common.settings import from_json, to_json
from common.storage.paths import join
from contract.catalogue import read_columns, total_events
from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from preprocessing.config import ExpectationConfig, Limit

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """Statistics of a dataset, to compare with later datasets of the shop."""

    rows: int
    """Number of event rows."""
    reject_share: float
    """Share of invalid event rows, in [0, 1]."""
    reject_reasons: tuple[str, ...]
    """[R] reasons why event rows were invalid."""
    reject_shares: tuple[float, ...]
    """[R] for each reason, the share of all event rows that are invalid for this reason."""
    event_kinds: tuple[str, ...]
    """[K] names of the event kinds."""
    event_shares: tuple[float, ...]
    """[K] share of each kind among the kept events."""
    first_day: str
    """Day of the first event, an ISO date (UTC)."""
    last_day: str
    """Day of the last event, an ISO date (UTC)."""
    category_share: float
    """Share of the items with a known category."""
    price_share: float
    """Share of the items with a known price."""
    availability_share: float
    """Share of the items with a known availability."""
    min_price: float | None
    """Lowest price; None: no item has a price."""
    max_price: float | None
    """Highest price; None: no item has a price."""


_MEASURES = {
    "rows": "relative change of the number of event rows",
    "event_shares": "largest change of the share of an event kind",
    "popularity": "distance, from 0 to 1, between the items' shares of the events",
    "rejects": "increase of the share of invalid event rows",
    "domains": "largest increase of the share of event rows that are invalid for one reason",
    "presence": "largest decrease of the share of items with a known category, price or availability",
    "prices": "share of the priced items outside the baseline's price range",
    "days_behind": "number of days from the last event to that of the baseline",
}
"""Definition of the distance for each figure, for messages. `ExpectationConfig` has the same definitions."""


@dataclass(frozen=True)
class Check:
    """The comparison of one statistic of a dataset with that of its baseline."""

    name: str
    """Name of the figure, as in `ExpectationConfig`."""
    baseline: str
    """The baseline's figure, formatted."""
    found: str
    """This dataset's figure, formatted."""
    distance: float
    """Distance between the two figures, as `ExpectationConfig` defines it."""
    warn: float | None
    """The distance above which a warning is logged."""
    fail: float | None
    """The distance above which the job fails."""
    verdict: str
    """`ok`, `warn` or `fail`."""


def describe_expectations(statistics: Mapping[str, Any], root: str) -> Expectations:
    """Computes the content of `expectations.json` from the statistics and the prices of the dataset at `root`."""
    events, counts = statistics["events"], statistics["catalogue"]
    prices = pc.min_max(_read_catalogue(root, "price")["price"].drop_null()).as_py()
    items, rows = max(counts["items"], 1), events["rows"]
    return Expectations(
        rows=rows,
        reject_share=sum(events["rejected"].values()) / max(rows, 1),
        reject_reasons=tuple(events["rejected"]),
        reject_shares=tuple(count / max(rows, 1) for count in events["rejected"].values()),
        event_kinds=tuple(events["by_kind"]),
        event_shares=tuple(count / events["events"] for count in events["by_kind"].values()),
        first_day=min(events["by_day"]),
        last_day=max(events["by_day"]),
        category_share=counts["with_category"] / items,
        price_share=counts["with_price"] / items,
        availability_share=counts["with_availability"] / items,
        min_price=prices["min"],
        max_price=prices["max"],
    )


def write_expectations(expectations: Expectations, root: str) -> None:
    """Writes `expectations` into the dataset at `root`, as `expectations.json`."""
    content = encode_json(to_json(expectations), ensure_ascii=False)
    storage.write_bytes(DatasetLayout(root).expectations, content)


def read_expectations(root: str) -> Expectations:
    """Reads `expectations.json` of the dataset at `root`.

    Raises:
      ContractError: there is no dataset, or the file is missing or outdated.
    """
    read_manifest(root)
    try:
        return from_json(Expectations, json.loads(storage.read_bytes(DatasetLayout(root).expectations)))
    except (FileNotFoundError, ValueError):
        raise ContractError(
            f"{root} cannot be a baseline: its expectations.json is missing or outdated; prepare this dataset again"
        ) from None


def compare(baseline: str, after: Expectations, root: str, config: ExpectationConfig) -> list[Check]:
    """Compares a new dataset with its baseline, and writes all checks to `comparison.json`.

    Logs a warning for each distance above its `warn` limit.

    Args:
      baseline: root of the earlier dataset.
      after: figures of the new dataset.
      root: root of the new dataset; its manifest need not exist yet.
      config: limits of the distances.

    Raises:
      ContractError: the baseline is not a dataset with a current `expectations.json`.
      ValueError: a distance exceeds its `fail` limit.
    """
    before = read_expectations(baseline)
    items = [_read_catalogue(dataset, "item_id", "price", "event_counts") for dataset in (baseline, root)]
    checks = [*check_figures(before, after, config), *check_items(before, items[0], items[1], config)]
    for check in checks:
        if check.verdict == "warn":
            log.warning(
                "the dataset differs from the baseline in %s; check the input, or raise expectations.%s.warn",
                _format_check(check, check.warn),
                check.name,
            )
    content = {"baseline": baseline, "checks": [asdict(check) for check in checks]}
    storage.write_bytes(DatasetLayout(root).comparison, encode_json(content))
    failed = [check for check in checks if check.verdict == "fail"]
    if failed:
        found = "; ".join(_format_check(check, check.fail) for check in failed)
        raise ValueError(
            f"the dataset differs too much from {baseline} in {found}. "
            f"Check the input; to publish the dataset anyway, raise {_settings(failed)} or omit --baseline"
        )
    return checks


def check_figures(before: Expectations, after: Expectations, config: ExpectationConfig) -> list[Check]:
    """Checks all figures except popularity and prices, which need the catalogues. `before` is the baseline."""
    rows = abs(after.rows - before.rows) / max(before.rows, 1)
    behind = (date.fromisoformat(before.last_day) - date.fromisoformat(after.last_day)).days
    return [
        _check("rows", config.rows, rows, f"{before.rows:,}", f"{after.rows:,}"),
        _check(
            "event_shares",
            config.event_shares,
            _largest_change(_shares_by_kind(before), _shares_by_kind(after)),
            _format_shares(before),
            _format_shares(after),
        ),
        _check(
            "rejects",
            config.rejects,
            max(after.reject_share - before.reject_share, 0.0),
            f"{before.reject_share:.2%}",
            f"{after.reject_share:.2%}",
        ),
        _check_domains(before, after, config.domains),
        _check_presence(before, after, config.presence),
        _check("days_behind", config.days_behind, max(behind, 0), before.last_day, after.last_day),
    ]


def _check_domains(before: Expectations, after: Expectations, limit: Limit) -> Check:
    """Checks the share of invalid rows per reason; reports the largest increase."""
    shares_before, shares_after = (
        dict(zip(dataset.reject_reasons, dataset.reject_shares, strict=True)) for dataset in (before, after)
    )
    increases = {reason: share - shares_before.get(reason, 0.0) for reason, share in shares_after.items()}
    reason = max(increases, key=lambda name: increases[name], default="no invalid row")
    return _check(
        "domains",
        limit,
        max(increases.get(reason, 0.0), 0.0),
        f"{shares_before.get(reason, 0.0):.2%} ({reason})",
        f"{shares_after.get(reason, 0.0):.2%}",
    )


def _check_presence(before: Expectations, after: Expectations, limit: Limit) -> Check:
    """Checks the shares of items with a category, price or availability; reports the largest decrease."""
    names = {"category_share": "a category", "price_share": "a price", "availability_share": "an availability"}
    decreases = {name: getattr(before, name) - getattr(after, name) for name in names}
    worst = max(decreases, key=lambda name: decreases[name])
    return _check(
        "presence",
        limit,
        max(decreases[worst], 0.0),
        f"{getattr(before, worst):.1%} (items with {names[worst]})",
        f"{getattr(after, worst):.1%}",
    )


def check_items(expected: Expectations, before: pa.Table, after: pa.Table, config: ExpectationConfig) -> list[Check]:
    """Checks the items' popularity and prices against the baseline.

    `expected`: figures of the baseline. `before` and `after`: catalogues of the baseline and of the new dataset. The
    catalogues have the columns item_id, price and event_counts.
    """
    prices = after["price"].drop_null().to_numpy()
    outside, baseline = 0.0, "no prices"
    if expected.min_price is not None and expected.max_price is not None:
        is_outside = (prices < expected.min_price) | (prices > expected.max_price)
        outside = float(is_outside.mean()) if len(prices) else 0.0
        baseline = _format_range(expected.min_price, expected.max_price)
    found = _format_range(float(prices.min()), float(prices.max())) if len(prices) else "no prices"
    distance = popularity_distance(before, after)
    return [
        _check("popularity", config.popularity, distance, f"{len(before):,} items", f"{len(after):,} items"),
        _check("prices", config.prices, outside, baseline, found),
    ]


def popularity_distance(before: pa.Table, after: pa.Table) -> float:
    """Computes the total variation distance, in [0, 1], between the popularities of two catalogues.

    The popularity of an item is its share of all training events.
    """
    ids = pa.concat_arrays([before["item_id"].combine_chunks(), after["item_id"].combine_chunks()]).dictionary_encode()
    code, size = ids.indices.to_numpy(), len(ids.dictionary)
    shares = []
    for table, indices in ((before, code[: len(before)]), (after, code[len(before) :])):
        events = total_events(table)
        shares.append(np.bincount(indices, weights=events, minlength=size) / max(events.sum(), 1))
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _read_catalogue(root: str, *names: str) -> pa.Table:
    folder = DatasetLayout(root).catalogue
    return read_columns([join(folder, name) for name in storage.list_files(folder)], names)


def _check(name: str, limit: Limit, distance: float, baseline: str, found: str) -> Check:
    verdict = "ok"
    if limit.fail is not None and distance > limit.fail:
        verdict = "fail"
    elif limit.warn is not None and distance > limit.warn:
        verdict = "warn"
    return Check(name, baseline, found, distance, limit.warn, limit.fail, verdict)


def _format_check(check: Check, limit: float | None) -> str:
    return (
        f"{check.name}: the {_MEASURES[check.name]} is {check.distance:.4g}, above the limit of {limit:g} "
        f"(now {check.found}, before {check.baseline})"
    )


def _settings(checks: list[Check]) -> str:
    return ", ".join(f"expectations.{check.name}.fail" for check in checks)


def _format_shares(expectations: Expectations) -> str:
    return ", ".join(f"{kind} {share:.2%}" for kind, share in _shares_by_kind(expectations).items())


def _shares_by_kind(expectations: Expectations) -> dict[str, float]:
    return dict(zip(expectations.event_kinds, expectations.event_shares, strict=True))


def _largest_change(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Returns the largest absolute change of an event kind's share. A kind that a dataset lacks has the share 0."""
    return max(abs(after.get(kind, 0.0) - before.get(kind, 0.0)) for kind in {**before, **after})


def _format_range(lowest: float, highest: float) -> str:
    return f"{lowest:g} to {highest:g}"
