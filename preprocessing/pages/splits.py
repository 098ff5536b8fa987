"""The Splits section: events per split, and visitors and items without training events."""

from collections.abc import Sequence

from common.report import charts
from common.report.page import Note, Part, Picture, Section, Table
from common.report.parts import Statistics
from contract.schema import Split, SplitMethod

_LEAKING = (
    "The events were split at random, so later events leak into training. Figures on these splits do not show how well "
    "a model would have predicted the future."
)


def split_section(statistics: Statistics, method: SplitMethod) -> Section:
    """Charts the events of each split, and the events of new visitors and of new items.

    A visitor or an item is new if it has no training events.
    """
    if method == SplitMethod.NONE:
        return Section("Splits", [Note("There is no held-out data: all events are for training the deployed model.")])
    visitors, items = statistics["events"]["by_split"], statistics["items"]["by_split"]
    held_out = [split for split in Split if split != Split.TRAIN]
    totals = {split: visitors[split]["events"] for split in Split}
    parts: list[Part] = [Note(_LEAKING, is_warning=True)] if method == SplitMethod.RANDOM else []
    new_visitors = [visitors[split]["events_of_new_visitors"] for split in held_out]
    new_items = [items[split]["events_of_new_items"] for split in held_out]
    held_out_events = [totals[split] for split in held_out]
    return Section(
        "Splits",
        [
            *parts,
            _rows(totals),
            _cold(
                "visitors",
                held_out,
                new_visitors,
                held_out_events,
                [visitors[split]["new_visitors"] for split in held_out],
            ),
            _cold("items", held_out, new_items, held_out_events, [items[split]["new_items"] for split in held_out]),
        ],
    )


def _rows(totals: dict[Split, int]) -> Picture:
    return Picture(
        title="Events per split",
        summary=", ".join(f"{count:,} {split}" for split, count in totals.items()) + ".",
        svg=charts.bars("splits", [str(split) for split in totals], list(totals.values())),
        table=Table(["split", "events"], [[str(split), count] for split, count in totals.items()]),
    )


def _cold(
    what: str, splits: Sequence[Split], of_new: Sequence[int], events: Sequence[int], new: Sequence[int]
) -> Picture:
    known = [total - cold for total, cold in zip(events, of_new, strict=True)]
    shares = ", ".join(
        f"{cold / total:.1%} in {split}" for split, cold, total in zip(splits, of_new, events, strict=True)
    )
    return Picture(
        title=f"Events of {what} seen in training",
        summary=f"Events of {what} without training events: {shares}.",
        svg=charts.stacks(
            f"cold-{what}",
            [str(split) for split in splits],
            [(f"{what} seen in training", known), (f"new {what}", of_new)],
        ),
        table=Table(
            ["split", f"events of {what} seen in training", f"events of new {what}", f"new {what}"],
            [[str(s), k, c, n] for s, k, c, n in zip(splits, known, of_new, new, strict=True)],
        ),
    )
