"""Renders an export's recommendations for a few returning visitors as text."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cartwheel.recommender import Recommender, load
from common.storage.paths import join
from contract.catalogue import read_catalogue
from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from contract.schema import Split, Vocabulary
from contract.shards import Shard, read_timelines
from contract.timelines import TimelineRows, timeline_starts

NUM_VISITORS, MIN_HISTORY, K = 5, 4, 4
_COLUMNS = 100


def show_recommendations(export: str, dataset: str, *, with_repeats: bool = False) -> str:
    """Renders the recommendations for a few returning visitors, with their latest items.

    Args:
      export: directory of an exported model.
      dataset: the prepared dataset.
      with_repeats: whether visitors buy items again. If so, each visitor has two lists: all items, and new items.
    """
    model, names = load(export), read_item_names(dataset)
    return "\n".join(
        line
        for visitor, history in returning_visitors(dataset)
        for line in _visitor_lines(model, visitor, history, names, with_repeats=with_repeats)
    )


def returning_visitors(dataset: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the ids and histories of the first `NUM_VISITORS` returning visitors of the test window.

    A history has at least `MIN_HISTORY` item ids of the vocabulary, all from before the window, oldest first.
    """
    items, visitors = (_read_ids(dataset, name) for name in (Vocabulary.ITEMS, Vocabulary.VISITORS))
    found = 0
    for history in _histories(_read_split(dataset)):
        known = history.item[history.item < len(items)]
        if len(known) < MIN_HISTORY or history.visitor[0] >= len(visitors):
            continue
        yield visitors[history.visitor[0]], [items[item] for item in known]
        found += 1
        if found == NUM_VISITORS:
            return


def read_item_names(dataset: str) -> Mapping[str, str]:
    """Returns a name for each item id: its title, or its id and categories, or its id alone."""
    rows = read_catalogue([join(dataset, name) for name in read_manifest(dataset).catalogue_files])
    categories = _read_ids(dataset, Vocabulary.CATEGORIES)
    columns = zip(
        rows["item_id"].to_pylist(), rows["title"].to_pylist(), rows["category_path"].to_pylist(), strict=True
    )
    return {
        item: title or _name_without_title(item, [categories[i] if i < len(categories) else "?" for i in path])
        for item, title, path in columns
    }


def _name_without_title(item: str, categories: Sequence[str]) -> str:
    return f"{item} ({'/'.join(categories)})" if categories else f"item {item}"


def _visitor_lines(
    model: Recommender, visitor: str, history: Sequence[str], names: Mapping[str, str], *, with_repeats: bool
) -> Iterator[str]:
    latest = list(dict.fromkeys(reversed(history)))[:K]
    yield f"  visitor {visitor}"
    yield _line("history", [names[item] for item in latest])
    # whether each list excludes the items of the history
    lists = {"next": False, "next, if new": True} if with_repeats else {"recommended": True}
    for label, exclude_seen in lists.items():
        recommended = model.recommend(
            visitor_id=visitor, history=history, k=min(K, len(names)), exclude_seen=exclude_seen
        )
        yield _line(label, [names[entry.item_id] for entry in recommended])


def _line(label: str, names: Sequence[str]) -> str:
    start = f"    {label + ':':13} "
    return start + textwrap.shorten(", ".join(names), _COLUMNS - len(start), placeholder=" …")


def _read_split(dataset: str) -> TimelineRows:
    manifest = read_manifest(dataset)
    split = Split.TEST if Split.TEST in manifest.splits else Split.TRAIN
    return read_timelines([Shard(join(dataset, name), manifest.files[name]) for name in manifest.splits[split].files])


def _histories(rows: TimelineRows) -> Iterator[TimelineRows]:
    starts = timeline_starts(rows.position)
    for begin, end in zip(starts, np.append(starts[1:], len(rows)), strict=True):
        timeline = rows[begin:end]
        history = timeline[timeline.is_target == 0]
        if len(history):
            yield history


def _read_ids(dataset: str, name: Vocabulary) -> list[str]:
    with open(DatasetLayout(dataset).vocabulary(name), encoding="utf-8", newline="\n") as file:
        return file.read().split("\n")[:-1]
