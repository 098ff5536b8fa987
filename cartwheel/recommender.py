"""Loads an exported model, which recommends items for raw ids. Needs only TensorFlow."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Recommendation(NamedTuple):
    """One recommended item."""

    item_id: str
    """The shop's id of the item."""
    score: float
    """Higher is better; comparable within one list only."""


class Recommender:
    """An exported model. Each method calls the signature of the same name in the SavedModel."""

    def __init__(self, model: Any) -> None:
        """Wraps a loaded SavedModel. To open an export, use `load`."""
        self._model = model  # keeps the variables of the signatures alive
        self._signatures = model.signatures

    def recommend(
        self, *, history: Sequence[str] = (), visitor_id: str = "", k: int = 10, exclude_seen: bool = True
    ) -> list[Recommendation]:
        """Recommends items on offer to one visitor.

        Args:
          history: ids of the visitor's items, oldest first; unknown ids are ignored.
          visitor_id: id of the visitor; '' if unknown. For an unknown visitor, some models rank by `history`, others by
            popularity.
          k: maximum length of the list, at least 1.
          exclude_seen: whether to exclude the items of `history`.

        Returns:
          At most `k` items, best first. The list is shorter if no other items are left.
        """
        import tensorflow as tf

        answer = self._signatures["recommend"](
            visitor_id=tf.constant([visitor_id]),
            history=tf.constant([list(history) or [""]]),
            k=tf.constant([k]),
            exclude_seen=tf.constant([exclude_seen]),
        )
        return _first_list(answer)

    def similar_items(self, item_id: str, *, k: int = 10) -> list[Recommendation]:
        """Returns at most `k` items on offer, most similar to `item_id` first; popular items if the id is unknown."""
        import tensorflow as tf

        return _first_list(self._signatures["similar_items"](item_id=tf.constant([item_id]), k=tf.constant([k])))

    def score(self, visitor_id: str, item_ids: Sequence[str]) -> list[float]:
        """Returns one visitor's score for each item, in the order of `item_ids`. Higher is better."""
        import tensorflow as tf

        answer = self._signatures["score"](
            visitor_id=tf.constant([visitor_id] * len(item_ids)), item_id=tf.constant(list(item_ids))
        )
        (scores,) = answer.values()
        return scores.numpy().reshape(-1).tolist()


def load(export: str) -> Recommender:
    """Opens an exported model and calls each method once, because the first call of each is slow.

    Args:
      export: directory that `cartwheel export` or `cartwheel refresh` published.

    Raises:
      OSError: the directory contains no SavedModel.
      ValueError: the SavedModel is damaged.
    """
    import tensorflow as tf

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


def _first_list(answer: Any) -> list[Recommendation]:
    items, scores = answer["item_id"].numpy()[0], answer["score"].numpy()[0]
    return [Recommendation(item.decode(), float(score)) for item, score in zip(items, scores, strict=True) if item]
