"""Exported models, loaded and asked one question at a time.

Shapes: H history, K list.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from common import storage
from common.storage.paths import join
from trainer.data.dataset import read_vocabulary
from trainer.runs.layout import RunLayout


class Ranked(NamedTuple):
    """The ids that a model shows, best first, their scores, and how long it took, in milliseconds."""

    item_ids: list[str]
    scores: list[float]
    milliseconds: float


@dataclass(frozen=True)
class Export:
    """A loaded SavedModel of `trainer export`, with the ids that it knows, most frequent first."""

    name: str
    signatures: Any
    items: list[str]
    visitors: list[str]

    def recommend(self, visitor_id: str, history: Sequence[str], k: int, *, hide_seen: bool) -> Ranked:
        """The best items of the catalogue for a visitor; at most as many as it has."""
        return self._ask(
            "recommend",
            visitor_id=tf.constant([visitor_id]),
            history=tf.constant([list(history) or [""]]),
            k=tf.constant(min(k, len(self.items))),
            exclude_seen=tf.constant(hide_seen),
        )

    def similar(self, item_id: str, k: int) -> Ranked:
        """The items most like this one."""
        return self._ask("similar_items", item_id=tf.constant([item_id]), k=tf.constant(min(k, len(self.items))))

    def _ask(self, signature: str, **inputs: tf.Tensor) -> Ranked:
        begin = time.perf_counter()
        answer = self.signatures[signature](**inputs)
        ids, scores = answer["item_id"].numpy()[0], answer["score"].numpy()[0]
        milliseconds = (time.perf_counter() - begin) * 1000
        shown = [(item.decode(), float(score)) for item, score in zip(ids, scores, strict=True) if item]
        return Ranked([item for item, _ in shown], [score for _, score in shown], milliseconds)


def open_exports(uris: Sequence[str]) -> list[Export]:
    """Loads SavedModels, and asks each once, for a signature's first answer takes far longer than those that follow.

    Raises:
      ValueError: one is not an export of this trainer, or is given twice.
    """
    exports = []
    for name, uri in zip(distinct_names(uris), uris, strict=True):
        export = _open(name, uri)
        export.recommend("", [], 1, hide_seen=True)
        export.similar("", 1)
        exports.append(export)
    return exports


def distinct_names(uris: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart: `mf/export`, `nn/export`.

    Raises:
      ValueError: the same path is given twice.
    """
    parts = [uri.rstrip("/").split("/") for uri in uris]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"the same export is given twice among {', '.join(uris)}; give each once")


def _open(name: str, uri: str) -> Export:
    if not storage.exists(join(uri, "saved_model.pb")):
        is_run = storage.exists(RunLayout(uri).run)
        command = f"python -m trainer export --workdir {uri if is_run else 'RUN'} --output NEW"
        raise ValueError(f"{uri} is {'a run' if is_run else 'not a SavedModel'}; give what `{command}` makes")
    model = _load(uri)
    missing = {"recommend", "similar_items"} - set(model.signatures)
    if missing:
        raise ValueError(f"{uri} lacks the signatures {', '.join(sorted(missing))}; export the run again")
    items, visitors = (read_vocabulary(join(uri, "assets", f"{of}.txt")) for of in ("items", "visitors"))
    return Export(name, model.signatures, items, visitors)


def _load(uri: str) -> Any:
    load: Callable[[str], Any] = tf.saved_model.load
    if storage.is_served_by_tensorflow(uri):
        return load(storage.local_path(uri) if storage.is_local(uri) else uri)
    with tempfile.TemporaryDirectory(prefix="cartwheel-") as folder:
        for name in storage.list_files(uri):
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            storage.write_bytes(path, storage.read_bytes(join(uri, name)))
        return load(folder)
