"""Compares a full-size synthetic shop with Retailrocket's data, and measures the time and memory to write the shop.

Shapes: N rows of the event log, R property rows.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from benchmarks.harness import report, run_command

VIEW, CART, BUY = "view", "addtocart", "transaction"
SESSION_GAP_S = 1_800
ROBOT_EVENTS_A_DAY = 200
TOLERANCE = 0.1
SEED = 0

# each figure's value in Retailrocket's data, or a range that contains the value
TABLE: dict[str, float | tuple[float, float]] = {
    "events": 2_756_101,
    "exact duplicates": 460,
    "views": 2_664_312,
    "carts": 69_332,
    "transaction lines": 22_457,
    "visitors": 1_407_580,
    "items in events": 235_061,
    "largest item id": 466_867,
    "visitors who viewed": 1_404_179,
    "visitors who carted": 37_722,
    "visitors who bought": 11_719,
    "browser: views": 1.71,
    "browser: distinct items": 1.41,
    "cart only: views": 5.49,
    "cart only: carts": 1.54,
    "cart only: distinct items": 3.71,
    "buyer: views": 15.42,
    "buyer: carts": 2.34,
    "buyer: distinct items": 9.54,
    "events per visitor: mean": 1.958,
    "events per visitor: median": 1,
    "events per visitor: p90": 3,
    "events per visitor: p95": 5,
    "events per visitor: p99": 13,
    "events per visitor: p99.9": 47,
    "events per visitor: max": 7_757,
    "visitors with one event: share": 0.712,
    "robots (over 200 events in a day)": 29,
    "robots: events": 41_287,
    "events per item: mean": 11.73,
    "events per item: p25": 1,
    "events per item: median": 3,
    "events per item: p75": 9,
    "events per item: max": 3_412,
    "items viewed": 234_838,
    "items carted": 23_903,
    "carts per item: max": 306,
    "items bought": 12_025,
    "purchases per item: max": 133,
    "top 20% of items: share of views": 0.78,
    "transactions": 17_672,
    "lines per transaction: mean": 1.27,
    "lines per transaction: max": 31,
    "sessions": 1_761_675,
    "events per session: mean": 1.56,
    "events per session: p99": 9,
    "events per session: max": 417,
    "gap on the same day: p10, s": 10,
    "gap on the same day: p25, s": 29,
    "gap on the same day: median, s": 83,
    "gap on the same day: p75, s": 316,
    "gap on the same day: p90, s": 2_531,
    "carts after a view of the item: share": (0.74, 0.87),
    "purchases after a cart of the item: share": (0.89, 0.92),
    "first view to first cart: median, s": 138,
    "first cart to first purchase: median, s": 391,
    "visitors who return in a later session: share": 0.129,
    "busiest hour (UTC)": (20, 20),
    "events in the busiest hour": 188_000,
    "quietest hour (UTC)": (10, 10),
    "events in the quietest hour": 16_400,
    "events on a weekday / events on a weekend day": (1.0, 2.0),
    "categories": 1_669,
    "categories: roots": 25,
    **{f"categories: depth {depth}": count for depth, count in enumerate((25, 174, 702, 665, 90, 13))},
    "categories viewed": 1_086,
    "categories carted": 760,
    "categories bought": 699,
    "top 10 categories: share of views": 0.185,
    "top 100 categories: share of views": 0.59,
    "property rows": 20_275_902,
    "property rows: part 1": 10_999_999,
    "property rows: part 2": 9_275_903,
    "items with properties": 417_053,
    "properties": 1_104,
    "snapshots": (18, 18),
    "rows of 888": 3_000_398,
    "rows of 790": 1_790_516,
    "rows of available": 1_503_639,
    "rows of categoryid": 788_214,
    "rows of 6": 631_471,
    "rows of 283": 597_419,
    "available at the end: share": 0.1295,
}

# contradictory or ambiguous figures of the table
NOTES = (
    "gaps: with 1,761,675 sessions of 1,407,580 visitors, 26% of all gaps exceed 30 minutes, so the 75th percentile of "
    "all gaps is above 1,800 s, not 316 s. The gaps within one UTC day in the 5,000-visitor sample have the quantiles "
    "11, 29, 78, 291 and 2,030 s, close to the table's 10, 29, 83, 316 and 2,531 s, so these are meant.",
    "snapshots: there are 19 Sundays from 2015-05-10 to 09-13, and 18 snapshots: one week is missing.",
    "segments: the mean views of browsers, cart-only visitors and buyers sum to 2,670,498 views, 0.2% too many.",
    "top categories: shares of the views of items with a category; the top 10 have 16.7% of all views.",
    "time to cart: 138 s is the sample's median from the first view to the first cart, if the item is viewed first.",
    "property rows: those of the synthetic shop include a title per item, which Retailrocket's data lacks.",
)


def main() -> None:
    """Compares a shop from `synthesize` with Retailrocket; prints and records the comparison."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Path(folder) / "shop"
        visitors = str(TABLE["visitors"])
        command = [
            "-m",
            "preprocessing",
            "synthesize",
            "--visitors",
            visitors,
            "--seed",
            str(SEED),
            "--output",
            str(shop),
        ]
        timing = run_command([sys.executable, *command])
        figures = measure_shop(shop)
    rows = {name: _compare(target, figures[name]) for name, target in TABLE.items()}
    print(f"{'figure':50} {'Retailrocket':>18} {'synthetic':>14} {'ratio':>7}")
    for name, row in rows.items():
        mark = "" if row["within"] else "  outside"
        print(f"{name:50} {_format(row['target']):>18} {_format(row['reached']):>14} {row['ratio']:7.3f}{mark}")
    within = sum(row["within"] for row in rows.values())
    print(f"{within} of {len(rows)} figures within {TOLERANCE:.0%}")
    for note in NOTES:
        print(f"note: {note}")
    measured = {"seconds": timing.seconds, "cpu_seconds": timing.cpu_seconds, "peak_mib": timing.peak_mib}
    report("synthesize", {**measured, "within": within, "of": len(rows), "figures": rows, "notes": NOTES})


def measure_shop(directory: Path) -> dict[str, float]:
    """Computes statistics of a shop from its files; the keys are those of `TABLE`."""
    log = _read_events(directory / "events.csv")
    tree = pd.read_csv(directory / "category_tree.csv", dtype={"parentid": "Int64"})
    properties, last_category = _measure_properties(directory)
    return {
        **_measure_totals(log),
        **_measure_visitors(log),
        **_measure_items(log),
        **_measure_sessions(log),
        **_measure_funnel(log),
        **_measure_hours(log),
        **_measure_tree(tree),
        **_measure_categories(log, last_category),
        **properties,
    }


def _read_events(path: Path) -> pd.DataFrame:
    """Reads the event log [N], sorted by visitor and time.

    The column `gap_s` has the seconds since the visitor's previous event, NaN for the first.
    """
    log = pa_csv.read_csv(path).to_pandas()
    log = log.sort_values(["visitorid", "timestamp"], kind="stable", ignore_index=True)
    log["gap_s"] = log.timestamp.diff().where(log.visitorid.diff() == 0) / 1000
    return log


def _measure_totals(log: pd.DataFrame) -> dict[str, float]:
    kinds, visitors = log.event.value_counts(), log.groupby("event").visitorid.nunique()
    lines = log[log.event == BUY].groupby("transactionid").size()
    return {
        "events": len(log),
        "exact duplicates": int(log.drop(columns="gap_s").duplicated().sum()),
        "views": kinds[VIEW],
        "carts": kinds[CART],
        "transaction lines": kinds[BUY],
        "visitors": log.visitorid.nunique(),
        "visitors who viewed": visitors[VIEW],
        "visitors who carted": visitors[CART],
        "visitors who bought": visitors[BUY],
        "transactions": len(lines),
        "lines per transaction: mean": lines.mean(),
        "lines per transaction: max": lines.max(),
    }


def _measure_visitors(log: pd.DataFrame) -> dict[str, float]:
    counts = pd.crosstab(log.visitorid, log.event)
    counts["items"] = log.drop_duplicates(["visitorid", "itemid"]).groupby("visitorid").size()
    buys, carts = counts[BUY] > 0, counts[CART] > 0
    browser, cart_only, buyer = (counts[who].mean() for who in (~buys & ~carts, ~buys & carts, buys))
    events = counts[[VIEW, CART, BUY]].sum(axis=1)
    by_day = log.groupby(["visitorid", log.timestamp // 86_400_000]).size()
    robots = by_day[by_day > ROBOT_EVENTS_A_DAY].index.unique("visitorid")
    return {
        "browser: views": browser[VIEW],
        "browser: distinct items": browser["items"],
        "cart only: views": cart_only[VIEW],
        "cart only: carts": cart_only[CART],
        "cart only: distinct items": cart_only["items"],
        "buyer: views": buyer[VIEW],
        "buyer: carts": buyer[CART],
        "buyer: distinct items": buyer["items"],
        "events per visitor: mean": events.mean(),
        "events per visitor: median": events.median(),
        **{f"events per visitor: p{p:g}": events.quantile(p / 100) for p in (90, 95, 99, 99.9)},
        "events per visitor: max": events.max(),
        "visitors with one event: share": (events == 1).mean(),
        "robots (over 200 events in a day)": len(robots),
        "robots: events": events[robots].sum(),
    }


def _measure_items(log: pd.DataFrame) -> dict[str, float]:
    events = log.groupby("itemid").size()
    views, carts, buys = (log[log.event == kind].groupby("itemid").size() for kind in (VIEW, CART, BUY))
    top = views.nlargest(round(0.2 * len(events)))
    return {
        "items in events": len(events),
        "largest item id": events.index.max(),
        "events per item: mean": events.mean(),
        "events per item: p25": events.quantile(0.25),
        "events per item: median": events.median(),
        "events per item: p75": events.quantile(0.75),
        "events per item: max": events.max(),
        "items viewed": len(views),
        "items carted": len(carts),
        "carts per item: max": carts.max(),
        "items bought": len(buys),
        "purchases per item: max": buys.max(),
        "top 20% of items: share of views": top.sum() / views.sum(),
    }


def _measure_sessions(log: pd.DataFrame) -> dict[str, float]:
    is_start = ~(log.gap_s <= SESSION_GAP_S)
    sizes = np.bincount(is_start.cumsum() - 1)
    sessions = is_start.groupby(log.visitorid).sum()
    day = log.timestamp // 86_400_000
    gaps = log.gap_s[log.gap_s.notna() & (day == day.shift())]
    return {
        "sessions": len(sizes),
        "events per session: mean": sizes.mean(),
        "events per session: p99": np.quantile(sizes, 0.99),
        "events per session: max": sizes.max(),
        **{f"gap on the same day: p{p}, s": gaps.quantile(p / 100) for p in (10, 25, 75, 90)},
        "gap on the same day: median, s": gaps.median(),
        "visitors who return in a later session: share": (sessions > 1).mean(),
    }


def _measure_funnel(log: pd.DataFrame) -> dict[str, float]:
    pairs = ["visitorid", "itemid"]
    first = log.groupby([*pairs, "event"]).timestamp.min().unstack()
    carts, buys = (log[log.event == kind].join(first, on=pairs) for kind in (CART, BUY))
    to_cart, to_purchase = ((first[after] - first[before]) / 1000 for before, after in ((VIEW, CART), (CART, BUY)))
    return {
        "carts after a view of the item: share": (carts[VIEW] <= carts.timestamp).mean(),
        "purchases after a cart of the item: share": (buys[CART] <= buys.timestamp).mean(),
        "first view to first cart: median, s": to_cart[to_cart >= 0].median(),
        "first cart to first purchase: median, s": to_purchase[to_purchase >= 0].median(),
    }


def _measure_hours(log: pd.DataFrame) -> dict[str, float]:
    hours = np.bincount(log.timestamp // 3_600_000 % 24, minlength=24)
    weekdays = np.bincount((log.timestamp // 86_400_000 + 3) % 7, minlength=7)  # from Monday
    return {
        "busiest hour (UTC)": hours.argmax(),
        "events in the busiest hour": hours.max(),
        "quietest hour (UTC)": hours.argmin(),
        "events in the quietest hour": hours.min(),
        "events on a weekday / events on a weekend day": weekdays[:5].mean() / weekdays[5:].mean(),
    }


def _measure_tree(tree: pd.DataFrame) -> dict[str, float]:
    parent = tree.set_index("categoryid").parentid
    depth = pd.Series(0, index=parent.index)
    above = parent.dropna()
    while len(above):
        depth[above.index] += 1
        above = above.map(parent).dropna()
    counts = {f"categories: depth {level}": (depth == level).sum() for level in range(6)}
    return {"categories": len(tree), "categories: roots": parent.isna().sum(), **counts}


def _measure_categories(log: pd.DataFrame, last_category: pd.Series) -> dict[str, float]:
    """Returns how many categories have events of each kind, and the share of views of the most viewed categories.

    An event belongs to the category that its item had at the end of the log; items without a category are skipped.
    """
    category = log.itemid.map(last_category)
    views, carts, buys = (category[log.event == kind].value_counts() for kind in (VIEW, CART, BUY))
    return {
        "categories viewed": len(views),
        "categories carted": len(carts),
        "categories bought": len(buys),
        "top 10 categories: share of views": views.iloc[:10].sum() / views.sum(),
        "top 100 categories: share of views": views.iloc[:100].sum() / views.sum(),
    }


def _measure_properties(directory: Path) -> tuple[dict[str, float], pd.Series]:
    """Measures the property files. Returns their figures, and the last category of each item."""
    rows, names, items, snapshots, kept = [], [], [], set(), []
    types = pa_csv.ConvertOptions(column_types={"property": pa.string(), "value": pa.string()})
    for path in sorted(directory.glob("item_properties_part*.csv")):
        rows.append(0)
        for batch in pa_csv.open_csv(path, convert_options=types):
            rows[-1] += batch.num_rows
            names.append(pd.DataFrame(pc.value_counts(batch["property"]).to_pylist()))
            items.append(pc.unique(batch["itemid"]))
            snapshots.update(pc.unique(batch["timestamp"]).to_pylist())
            is_kept = pc.is_in(batch["property"], pa.array(["available", "categoryid"]))
            kept.append(batch.filter(is_kept).to_pandas())
    counts = pd.concat(names).groupby("values").counts.sum()
    last = pd.concat(kept).sort_values("timestamp").drop_duplicates(["itemid", "property"], keep="last")
    last = last.pivot(index="itemid", columns="property", values="value")
    num_items = len(pc.unique(pa.concat_arrays(items)))
    figures = {
        "property rows": sum(rows),
        **{f"property rows: part {part}": count for part, count in enumerate(rows, start=1)},
        "items with properties": num_items,
        "properties": len(counts),
        "snapshots": len(snapshots),
        **{f"rows of {name}": counts[name] for name in ("888", "790", "available", "categoryid", "6", "283")},
        "available at the end: share": (last["available"] == "1").sum() / num_items,
    }
    return figures, last["categoryid"]


def _compare(target: float | tuple[float, float], reached: float) -> dict:
    """Compares a measured value with a target, which is a value or a range.

    In the result, `ratio` is 1 if the target is met, otherwise `reached` divided by the target, or by the
    nearer end of the range.
    """
    low, high = target if isinstance(target, tuple) else (target, target)
    ratio = float(reached) / (low if reached < low else high) if not low <= reached <= high else 1.0
    # a range with one value has no tolerance
    tolerance = 0 if isinstance(target, tuple) and low == high else TOLERANCE
    return {"target": target, "reached": float(reached), "ratio": ratio, "within": abs(ratio - 1) <= tolerance}


def _format(value: float | tuple[float, float]) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_format, value)) if value[0] != value[1] else _format(value[0])
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


if __name__ == "__main__":
    main()
