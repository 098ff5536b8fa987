"""What a dataset leads one to expect of the next one of the same shop, and how far the next one is from that.

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
from common.settings import from_json, to_json
from common.storage.paths import join
from contract.catalogue import read_columns
from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from contract.schema import EVENT_KINDS
from preprocessing.config import ExpectationConfig, Limit

log = logging.getLogger(__name__)

_KINDS_OF_ROWS = ("views", "carts", "transactions")


@dataclass(frozen=True, kw_only=True)
class Expectations:
    """The figures of a dataset that are compared: counts, ranges, domains, presence and shares.

    rows                event rows read
    reject_share        of these, the bad ones, in [0, 1]
    reject_reasons      [R] why rows were bad: what lies outside of its domain, or is missing
    reject_shares       [R] shares of the rows that were bad for these reasons
    event_shares        [K] shares of the kinds among the events kept
    first_day, last_day ISO dates (UTC) between which events lie
    categories, prices, availabilities   shares of the items of which each is told
    least_price, greatest_price          None: no item has a price
    """

    rows: int
    reject_share: float
    reject_reasons: tuple[str, ...]
    reject_shares: tuple[float, ...]
    event_shares: tuple[float, ...]
    first_day: str
    last_day: str
    categories: float
    prices: float
    availabilities: float
    least_price: float | None
    greatest_price: float | None


@dataclass(frozen=True)
class Check:
    """One figure beside the baseline's.

    name             of the limit in `ExpectationConfig`
    baseline, found  what is compared, for people
    distance         what the limit is of
    verdict          ok, warn or fail
    """

    name: str
    baseline: str
    found: str
    distance: float
    warn: float | None
    fail: float | None
    verdict: str


def describe_expectations(statistics: Mapping[str, Any], root: str) -> Expectations:
    """The expectations of the dataset at `root`, from its statistics and the prices of its catalogue."""
    events, known = statistics["events"], statistics["catalogue"]
    prices = _catalogue(root, "price")["price"].drop_null()
    span = pc.min_max(prices).as_py()
    items, rows = max(known["items"], 1), events["rows"]
    return Expectations(
        rows=rows,
        reject_share=sum(events["rejected"].values()) / max(rows, 1),
        reject_reasons=tuple(events["rejected"]),
        reject_shares=tuple(count / max(rows, 1) for count in events["rejected"].values()),
        event_shares=tuple(events["by_kind"][kind] / events["events"] for kind in EVENT_KINDS),
        first_day=min(events["by_day"]),
        last_day=max(events["by_day"]),
        categories=known["with_category"] / items,
        prices=known["with_price"] / items,
        availabilities=known["with_availability"] / items,
        least_price=span["min"],
        greatest_price=span["max"],
    )


def write_expectations(expectations: Expectations, root: str) -> None:
    """Writes `expectations.json`."""
    content = json.dumps(to_json(expectations), indent=2, ensure_ascii=False) + "\n"
    storage.write_bytes(DatasetLayout(root).expectations, content.encode())


def read_expectations(root: str) -> Expectations:
    """The expectations of the dataset at `root`.

    Raises:
      ContractError: there is no dataset, or one of an earlier version without expectations.
    """
    read_manifest(root)
    try:
        return from_json(Expectations, json.loads(storage.read_bytes(DatasetLayout(root).expectations)))
    except (FileNotFoundError, ValueError):
        raise ContractError(
            f"{root} cannot be a baseline: its expectations.json is missing or old; prepare it again with this version"
        ) from None


def compare(baseline: str, after: Expectations, root: str, config: ExpectationConfig) -> list[Check]:
    """The dataset at `root`, which may lack its manifest yet, beside the one at `baseline`.

    What came out is told and kept as `comparison.json`.

    Raises:
      ContractError: the baseline is no dataset with expectations.
      ValueError: something is further from the baseline than its `fail` limit.
    """
    before = read_expectations(baseline)
    items = [_catalogue(place, "item_id", "price", *_KINDS_OF_ROWS) for place in (baseline, root)]
    checks = [*check_figures(before, after, config), *check_items(before, items[0], items[1], config)]
    for check in checks:
        if check.verdict == "warn":
            log.warning("unlike the baseline: %s", _tell(check, check.warn))
    content = {"baseline": baseline, "checks": [asdict(check) for check in checks]}
    storage.write_bytes(DatasetLayout(root).comparison, (json.dumps(content, indent=2) + "\n").encode())
    failed = [check for check in checks if check.verdict == "fail"]
    if failed:
        raise ValueError(
            f"the dataset is too different from {baseline}: {'; '.join(_tell(check, check.fail) for check in failed)}. "
            f"Look into the input; to publish it all the same, raise {_settings(failed)} or leave out --baseline"
        )
    return checks


def check_figures(before: Expectations, after: Expectations, config: ExpectationConfig) -> list[Check]:
    """Rows, shares of kinds, rejects, in all and by reason, presence and the last day."""
    shares = np.abs(np.subtract(after.event_shares, before.event_shares))
    told = ("categories", "prices", "availabilities")
    falls = {name: getattr(before, name) - getattr(after, name) for name in told}
    worst = max(falls, key=lambda name: falls[name])
    behind = (date.fromisoformat(before.last_day) - date.fromisoformat(after.last_day)).days
    rows = abs(after.rows - before.rows) / max(before.rows, 1)
    bad_before, bad_after = (dict(zip(one.reject_reasons, one.reject_shares, strict=True)) for one in (before, after))
    rises = {reason: share - bad_before.get(reason, 0.0) for reason, share in bad_after.items()} or {"no bad row": 0.0}
    risen = max(rises, key=lambda reason: rises[reason])
    return [
        _check("rows", config.rows, rows, f"{before.rows:,}", f"{after.rows:,}"),
        _check(
            "event_shares",
            config.event_shares,
            float(shares.max()),
            _describe_shares(before),
            _describe_shares(after),
        ),
        _check(
            "rejects",
            config.rejects,
            max(after.reject_share - before.reject_share, 0.0),
            f"{before.reject_share:.2%}",
            f"{after.reject_share:.2%}",
        ),
        _check(
            "domains",
            config.domains,
            max(rises[risen], 0.0),
            f"{risen}: {bad_before.get(risen, 0.0):.2%} of the rows",
            f"{bad_after.get(risen, 0.0):.2%}",
        ),
        _check(
            "presence",
            config.presence,
            max(falls[worst], 0.0),
            f"{worst} of {getattr(before, worst):.1%} of the items",
            f"{getattr(after, worst):.1%}",
        ),
        _check("days_behind", config.days_behind, max(behind, 0), before.last_day, after.last_day),
    ]


def check_items(expected: Expectations, before: pa.Table, after: pa.Table, config: ExpectationConfig) -> list[Check]:
    """Popularity and prices, from the catalogues' item_id, price, views, carts and transactions."""
    prices = after["price"].drop_null().to_numpy()
    outside, span = 0.0, "no prices"
    if expected.least_price is not None and expected.greatest_price is not None:
        is_outside = (prices < expected.least_price) | (prices > expected.greatest_price)
        outside, span = (
            float(is_outside.mean()) if len(prices) else 0.0,
            _span(expected.least_price, expected.greatest_price),
        )
    found = _span(float(prices.min()), float(prices.max())) if len(prices) else "no prices"
    distance = popularity_distance(before, after)
    return [
        _check("popularity", config.popularity, distance, f"{len(before):,} items", f"{len(after):,} items"),
        _check("prices", config.prices, outside, span, found),
    ]


def popularity_distance(before: pa.Table, after: pa.Table) -> float:
    """Total variation, in [0, 1], between the items' shares of the training events of two catalogues."""
    ids = pa.concat_arrays([before["item_id"].combine_chunks(), after["item_id"].combine_chunks()]).dictionary_encode()
    code, size = ids.indices.to_numpy(), len(ids.dictionary)
    shares = []
    for table, places in ((before, code[: len(before)]), (after, code[len(before) :])):
        events = np.sum([table[name].to_numpy() for name in _KINDS_OF_ROWS], axis=0)
        shares.append(np.bincount(places, weights=events, minlength=size) / max(events.sum(), 1))
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _catalogue(root: str, *names: str) -> pa.Table:
    folder = DatasetLayout(root).catalogue
    return read_columns([join(folder, name) for name in storage.list_files(folder)], names)


def _check(name: str, limit: Limit, distance: float, baseline: str, found: str) -> Check:
    verdict = "ok"
    if limit.fail is not None and distance > limit.fail:
        verdict = "fail"
    elif limit.warn is not None and distance > limit.warn:
        verdict = "warn"
    return Check(name, baseline, found, distance, limit.warn, limit.fail, verdict)


def _tell(check: Check, limit: float | None) -> str:
    return f"{check.name} is {check.found}, was {check.baseline} (distance {check.distance:.4g}, limit {limit:g})"


def _settings(checks: list[Check]) -> str:
    return ", ".join(f"expectations.{check.name}.fail" for check in checks)


def _describe_shares(expectations: Expectations) -> str:
    return ", ".join(f"{kind} {share:.2%}" for kind, share in zip(EVENT_KINDS, expectations.event_shares, strict=True))


def _span(least: float, greatest: float) -> str:
    return f"{least:g} to {greatest:g}"
