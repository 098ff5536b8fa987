"""Loads exported models and calls their signatures for one query at a time.

Shapes: H entries of a history, K items of a list.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from common import storage
from common.storage.paths import join
from trainer.data.dataset import read_vocabulary
from trainer.serving.layout import check_export, read_info


class Ranked(NamedTuple):
    """The answer of one model to a query: items, best first, and their scores."""

    item_ids: list[str]
    """Ids of the items, best first."""
    scores: list[float]
    """One per item, descending."""
    milliseconds: float
    """Time that the model took."""


@dataclass(frozen=True)
class Export:
    """A loaded SavedModel that `export` published."""

    name: str
    """Name of the model, unique among the exports of the page."""
    signatures: Any
    """Functions of the SavedModel, by name."""
    items: list[str]
    """Ids of the items that the model knows, most frequent first."""
    visitors: list[str]
    """Ids of the visitors that the model knows, most frequent first."""
    num_offered: int
    """Number of items that may be recommended."""

    def recommend(self, visitor_id: str, history: Sequence[str], k: int, *, hide_seen: bool) -> Ranked:
        """Returns up to k items for a visitor.

        Args:
          visitor_id: id of the visitor; '' or an unknown id: only the history is used.
          history: ids of the visitor's items, oldest first; may be empty.
        """
        return self._call(
            "recommend",
            visitor_id=tf.constant([visitor_id]),
            history=tf.constant([list(history) or [""]]),
            k=tf.constant([min(k, len(self.items))]),
            exclude_seen=tf.constant([hide_seen]),
        )

    def similar(self, item_id: str, k: int) -> Ranked:
        """Returns up to k items, in descending order of their similarity to `item_id`."""
        return self._call("similar_items", item_id=tf.constant([item_id]), k=tf.constant([min(k, len(self.items))]))

    def _call(self, signature: str, **inputs: tf.Tensor) -> Ranked:
        start = time.perf_counter()
        answer = self.signatures[signature](**inputs)
        ids, scores = answer["item_id"].numpy()[0], answer["score"].numpy()[0]
        milliseconds = (time.perf_counter() - start) * 1000
        rows = [(item.decode(), float(score)) for item, score in zip(ids, scores, strict=True) if item]
        return Ranked([item for item, _ in rows], [score for _, score in rows], milliseconds)


def open_exports(uris: Sequence[str]) -> list[Export]:
    """Loads exports, and calls each signature once, because its first call is slow.

    Raises:
      ValueError: a directory is not an export, or is given twice.
    """
    exports = []
    for uri in uris:
        check_export(uri)
    for name, uri in zip(distinct_names([read_info(uri)["name"] for uri in uris], uris), uris, strict=True):
        export = _open(name, uri)
        export.recommend("", [], 1, hide_seen=True)
        export.similar("", 1)
        exports.append(export)
    return exports


def distinct_names(names: Sequence[str], uris: Sequence[str]) -> list[str]:
    """Makes model names distinct: adds the end of the model's path in `uris` to each name that occurs more than once.

    Raises:
      ValueError: a path is given twice.
    """
    count = Counter(names)
    endings = _distinct_endings(uris)
    return [name if count[name] == 1 else f"{name} ({end})" for name, end in zip(names, endings, strict=True)]


def _distinct_endings(uris: Sequence[str]) -> list[str]:
    """Returns an ending of each path, as short as possible but distinct, such as `new/export` and `old/export`."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    for depth in range(1, max(map(len, parts)) + 1):
        endings = ["/".join(part[-depth:]) for part in parts]
        if len(set(endings)) == len(endings):
            return endings
    raise ValueError(f"an export is given twice: {', '.join(uris)}; give each export once")


def _open(name: str, uri: str) -> Export:
    model = _load(uri)
    missing = {"recommend", "similar_items"} - set(model.signatures)
    if missing or not hasattr(model, "is_offered"):
        lacking = f"the signatures {', '.join(sorted(missing))}" if missing else "the mask of items on offer"
        raise ValueError(f"{uri} lacks {lacking}; export the run again")
    items, visitors = (read_vocabulary(join(uri, "assets", f"{of}.txt")) for of in ("items", "visitors"))
    num_offered = int(tf.math.count_nonzero(model.is_offered))
    return Export(name, model.signatures, items, visitors, num_offered)


def _load(uri: str) -> Any:
    load: Callable[[str], Any] = tf.saved_model.load
    if storage.is_served_by_tensorflow(uri):
        return load(storage.local_path(uri) if storage.is_local(uri) else uri)
    with storage.scratch_folder("export") as folder:
        for name in storage.list_files(uri):
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            storage.write_bytes(path, storage.read_bytes(join(uri, name)))
        return load(folder)
