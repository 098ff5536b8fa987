"""Loads an exported model in a fresh process and shows what it recommends to five visitors who came back.

usage: python -m benchmarks.show_recommendations EXPORT DATASET
"""

import os
import sys
from collections.abc import Iterator, Mapping

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from common.storage.paths import join
from contract.catalogue import read_catalogue
from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from contract.schema import Split, Vocabulary
from contract.shards import Shard, read_timelines
from contract.timelines import TimelineRows, timeline_starts

NUM_VISITORS, SHOWN_HISTORY, K = 5, 4, 5


def main() -> None:
    """Prints each visitor's last items and the first recommendations, with the path of their categories."""
    export, dataset = sys.argv[1:]
    recommend = tf.saved_model.load(export).signatures["recommend"]
    items, visitors = (_read_ids(dataset, name) for name in (Vocabulary.ITEMS, Vocabulary.VISITORS))
    category_of = _read_categories(dataset)
    print("returning visitors, and their items in root/…/category (–: none is known):")
    for visitor, history in _returning_visitors(dataset, len(visitors), len(items)):
        seen = [items[place] for place in history]
        answer = recommend(
            visitor_id=tf.constant([visitors[visitor]]),
            history=tf.constant([seen]),
            k=tf.constant(min(K, len(items))),
            exclude_seen=tf.constant(True),
        )
        found = [item.decode() for item in answer["item_id"].numpy()[0] if item]
        latest = list(dict.fromkeys(reversed(seen)))[:SHOWN_HISTORY]
        print(f"visitor {visitors[visitor]}")
        print("  saw last     " + ", ".join(_named(item, category_of) for item in latest))
        print("  recommended  " + ", ".join(_named(item, category_of) for item in found))


def _named(item: str, category_of: Mapping[str, str]) -> str:
    return f"{item} in {category_of[item]}"


def _returning_visitors(dataset: str, num_visitors: int, num_items: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first visitors of the test split that training knows, with the known items they saw before the cut."""
    manifest = read_manifest(dataset)
    split = Split.TEST if Split.TEST in manifest.splits else Split.TRAIN
    rows = read_timelines([Shard(join(dataset, name), manifest.files[name]) for name in manifest.splits[split].files])
    shown = 0
    for history in _histories(rows):
        known = history.item[history.item < num_items]
        if len(known) < SHOWN_HISTORY or history.visitor[0] >= num_visitors:
            continue
        yield int(history.visitor[0]), known
        shown += 1
        if shown == NUM_VISITORS:
            return


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


def _read_categories(dataset: str) -> Mapping[str, str]:
    """Item ids to `root / … / category`."""
    categories = _read_ids(dataset, Vocabulary.CATEGORIES)
    rows = read_catalogue([join(dataset, name) for name in read_manifest(dataset).catalogue_files])
    paths = zip(rows["item_id"].to_pylist(), rows["category_path"].to_pylist(), strict=True)
    return {item: "/".join(categories[i] if i < len(categories) else "?" for i in path) or "–" for item, path in paths}


if __name__ == "__main__":
    main()
