"""Pictures that several report sections use, each with a summary and a table."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from common.report import charts
from common.report.drawing import compact, shorten
from common.report.page import Cell, Note, Part, Picture, Table, share

Statistics = Mapping[str, Any]
"""`statistics.json`, or a part of it."""

_SHOWN = 10


def ranking(
    key: str, title: str, name: str, entries: Sequence[tuple[str, int]], unit: str, *, shown: int = _SHOWN
) -> Part:
    """Shows the first `shown` entries as bars, and all entries in a table. `entries`: ids and counts, highest first."""
    if not entries:
        return Note(f"{title}: no data.")
    (first, most), drawn = entries[0], entries[:shown]
    return Picture(
        title=title,
        summary=(
            f"{name.capitalize()} {shorten(first, 60)} has the most: {counted(most, unit)}; "
            f"rank {len(drawn)} has {drawn[-1][1]:,}."
        ),
        svg=charts.bars(key, [entry for entry, _ in drawn], [count for _, count in drawn]),
        table=Table([name, unit], entries),
    )


def counts(key: str, title: str, values: Mapping[str, int], unit: str) -> Picture:
    """Shows counts by name as bars, with their shares. `unit` is the unit of the counts, in the plural."""
    total = sum(values.values())
    notes = [f"{compact(count)} ({share(count, total)})" for count in values.values()]
    return Picture(
        title=title,
        summary=f"{counted(total, unit)}: " + ", ".join(f"{count:,} {name}" for name, count in values.items()) + ".",
        svg=charts.bars(key, list(values), list(values.values()), notes=notes),
        table=Table(["", unit, "share"], [[name, count, share(count, total)] for name, count in values.items()]),
    )


def histogram(key: str, title: str, distribution: Statistics, *, of: str, unit: str, colour: int = 0) -> Part:
    """Shows a histogram in bins of doubling width or, without values, a note.

    The table lists the bins, the mean, the quantiles and the maximum.

    Args:
      key: key of the picture.
      title: title of the picture.
      distribution: `histogram`, `mean`, `quantiles` and `max` of the values.
      of: unit of the counts in the bins, in the plural, such as `items`.
      unit: unit of the values, in the plural, such as `events`.
      colour: index of the colour in `SERIES`.
    """
    if not distribution["histogram"]:
        return Note(f"{title}: no data.")
    classes = double_classes({int(value): count for value, count in distribution["histogram"].items()})
    quantiles = distribution["quantiles"]
    rows: list[Sequence[Cell]] = [list(entry) for entry in classes]
    rows += [["mean", distribution["mean"]], *([f"quantile {q}", value] for q, value in quantiles.items())]
    rows += [["maximum", distribution["max"]]]
    return Picture(
        title=title,
        summary=(
            f"Mean {distribution['mean']:.3g}, median {quantiles['0.5']:,}, 99th percentile {quantiles['0.99']:,}, "
            f"maximum {distribution['max']:,}."
        ),
        svg=charts.columns(
            key,
            [label.partition("–")[0] for label, _ in classes],
            [count for _, count in classes],
            x_label=f"{unit} (lower bound)",
            y_label=of,
            is_log=True,
            colour=colour,
        ),
        table=Table([unit, of], rows),
    )


def counted(count: int, unit: str) -> str:
    """Formats a count with its unit, such as `1 view` or `2,000 views`. `unit` is in the plural: `views`."""
    return f"{count:,} {unit.removesuffix('s') if count == 1 else unit}"


def double_classes(values: Mapping[int, int]) -> list[tuple[str, int]]:
    """Sums counts into bins of doubling width. `values` maps each value, at least 1, to its count.

    Returns:
      The label and the count of each bin. The labels are 1, 2, 3–4, 5–8, … up to the bin of the greatest value.
    """
    classes = [0] * max((value - 1).bit_length() + 1 for value in values)
    for value, count in values.items():
        classes[(value - 1).bit_length()] += count
    return [(_class_name(index), count) for index, count in enumerate(classes)]


def _class_name(index: int) -> str:
    low, high = (1 << index >> 1) + 1, 1 << index
    return str(high) if low >= high else f"{compact(low)}–{compact(high)}"


def _median_bin(counts: Sequence[int]) -> int:
    before = itertools.accumulate(counts[:-1], initial=0)
    return max(index for index, below in enumerate(before) if 2 * below <= sum(counts))


def durations(key: str, title: str, buckets: Mapping[str, int], *, of: str, colour: int = 0) -> Part:
    """Shows a histogram or, without durations, a note. `buckets`: number of durations by lower bound in seconds."""
    if not buckets:
        return Note(f"{title}: no data.")
    labels = [duration(int(second)) for second in buckets]
    half = _median_bin(list(buckets.values()))
    until = duration(2 * max(int(list(buckets)[half]), 1)) if half else "1 s"
    return Picture(
        title=title,
        summary=f"{counted(sum(buckets.values()), of)}; half last less than {until}.",
        svg=charts.columns(
            key, labels, list(buckets.values()), x_label="at least", y_label=of, is_log=True, colour=colour
        ),
        table=Table(["at least", of], list(zip(labels, buckets.values(), strict=True))),
    )


def duration(seconds: int) -> str:
    """Formats a rounded duration in its largest unit, such as `0 s`, `34 min` or `12 d`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds} s"
