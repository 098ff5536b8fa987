"""Loads an exported model, which recommends items for raw ids. Needs only TensorFlow."""

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class Recommendation(NamedTuple):
    """One recommended item."""

    item_id: str
    """The shop's id of the item."""
    score: float
    """Higher is better; comparable within one list only."""


class Recommender:
    """An exported model, opened by `load`."""

    def __init__(self, model: Any) -> None:
        self._model = model  # keeps the variables of the signatures alive
        self._signatures = model.signatures

    def recommend(
        self, *, history: Sequence[str] = (), visitor_id: str = "", k: int = 10, exclude_seen: bool = True
    ) -> list[Recommendation]:
        """Returns at most `k` items on offer for one visitor, best first.

        `history` has item ids, oldest first. Unknown item ids are ignored. For an unknown `visitor_id`, some models
        rank by `history`, others by popularity. `exclude_seen` excludes the items of `history`.

        Raises ValueError if `k` is out of range, and TypeError, as the other methods do, if an id is not text.
        """
        _check_ids("history", history)
        _check_ids("visitor_id", [visitor_id])
        answer = self._call(
            "recommend",
            visitor_id=[visitor_id],
            history=[list(history) or [""]],
            k=[k],
            exclude_seen=[exclude_seen],
        )
        return _first_list(answer)

    def similar_items(self, item_id: str, *, k: int = 10) -> list[Recommendation]:
        """Returns at most `k` items on offer, most similar first; popular items if `item_id` is unknown."""
        _check_ids("item_id", [item_id])
        return _first_list(self._call("similar_items", item_id=[item_id], k=[k]))

    def score(self, visitor_id: str, item_ids: Sequence[str]) -> list[float]:
        """Returns the visitor's scores of the items, in the given order; higher is better."""
        _check_ids("visitor_id", [visitor_id])
        _check_ids("item_ids", item_ids)
        if len(item_ids) == 0:  # a call would have no type
            return []
        answer = self._call("score", visitor_id=[visitor_id] * len(item_ids), item_id=list(item_ids))
        (scores,) = answer.values()
        return scores.numpy().reshape(-1).tolist()

    def _call(self, signature: str, **inputs: list[Any]) -> Any:
        import tensorflow as tf

        from trainer.distributed.precision import full_float32

        try:
            with full_float32():  # as the model was evaluated
                return self._signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        except tf.errors.InvalidArgumentError as error:
            # TensorFlow's message ends with the text of the signature's own check and the wrong value, in brackets
            checked = re.search(r"\[(k must be .*?)\] \[(.*?)\]", str(error), re.DOTALL)
            if checked is None:
                raise
            raise ValueError(f"{checked[1]} {checked[2]}") from error


def load(export: str) -> Recommender:
    """Opens the export in a directory. Calls each method of the result once, because first calls are slow.

    Raises OSError if there is no SavedModel, and ValueError if it is damaged.
    """
    import tensorflow as tf

    if os.path.exists(os.path.join(export, "run.json")):
        raise ValueError(f"{export} is the directory of a run; export it with `cartwheel export --workdir {export} …`")
    try:
        recommender = Recommender(tf.saved_model.load(export))
    except (tf.errors.OpError, KeyError, ValueError) as error:
        raise ValueError(
            f"{export} cannot be loaded ({type(error).__name__}: {error}); export the run again"
        ) from error
    recommender.recommend(k=1)
    recommender.similar_items("", k=1)
    recommender.score("", [""])
    return recommender


def _check_ids(name: str, ids: Sequence[str]) -> None:
    """Raises TypeError unless `ids`, the value of the argument `name`, is a sequence of texts."""
    if isinstance(ids, str):
        raise TypeError(f"{name} must be a list of ids, got the text {ids!r}; pass [{ids!r}]")
    for each in ids:
        if not isinstance(each, str):
            raise TypeError(
                f"{name}: ids are text, got {each!r} ({type(each).__name__}); pass {str(each)!r}, as in the event log"
            )


def _first_list(answer: Any) -> list[Recommendation]:
    items, scores = answer["item_id"].numpy()[0], answer["score"].numpy()[0]
    return [Recommendation(item.decode(), float(score)) for item, score in zip(items, scores, strict=True) if item]
