"""Settings of the models."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

from common.settings import check
from trainer.config.losses import LossConfig


class BaseModelConfig:
    """Base class of the models' configs; defines default values of their properties."""

    @property
    def history_length(self) -> int:
        """Maximum number of history events in each training example."""
        return 0

    @property
    def is_sequential(self) -> bool:
        """Whether the history of a training example contains only earlier events; False: later events too."""
        return False

    @property
    def initial_stddev(self) -> float:
        """Standard deviation of the initial table entries, which are normally distributed; 0: all are 0."""
        return 0.0

    @property
    def dense_learning_rate(self) -> float | None:
        """Adam's learning rate for the dense weights; None: the optimizer of the tables trains them too."""
        return None

    @property
    def num_combinations(self) -> int | None:
        """Number of epochs of `solver=count`; None: this solver cannot compute the model."""
        return None

    @property
    def has_sums(self) -> bool:
        """Whether the model's scores are sums of weights; False: they are logits."""
        return False

    @property
    def least_squares_form(self) -> "MatrixFactorizationConfig | None":
        """The settings of the model that least squares trains instead of this one; None: there is no such model."""
        return None

    def check_loss(self, loss: LossConfig) -> None:
        """Raises ValueError if the loss cannot train the model."""
        rule = "0 unless the model is a factorization with model.similarity=dot, as a cosine ignores vector lengths"
        check(loss.l2 == 0, "loss.l2", loss.l2, rule)


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationConfig(BaseModelConfig):
    """One vector per visitor and one per item; the score is their similarity."""

    kind: Literal["matrix_factorization"] = "matrix_factorization"
    dim: int = 64
    """Number of entries of an embedding vector."""
    history_length: int = 0
    """0: every visitor has a learnt vector. Above 0: a visitor's vector is the normalised sum of the normalised vectors
    of their items (FISM: Kabbur et al., KDD 2013), so the model also ranks for visitors who are new after training. In
    training, the sum has at most this many items, and the positive is not among them."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """`cosine`: scale × cosine of the vectors; `dot`: scale × dot product."""
    scale: float = 10.0
    """Factor of the similarity; the temperature of the softmax is 1 / scale."""
    is_scale_learnt: bool = False
    """Whether Adam learns the scale, starting from `scale`, with a learning rate of 0.001."""
    has_item_bias: bool = True
    """Adds a learnt bias per item."""
    visitor_dropout: float = 0.0
    """Share of a visitor vector's entries that a training step drops."""
    initial_stddev: float = 0.1
    """Standard deviation of the normal distribution that initialises the tables."""

    def __post_init__(self) -> None:
        check(self.dim >= 1, "dim", self.dim, "at least 1")
        check(self.history_length >= 0, "history_length", self.history_length, "at least 0")
        check(
            not self.history_length or self.similarity == "cosine",
            "similarity",
            self.similarity,
            "cosine if model.history_length is above 0, so that longer histories do not score higher",
        )
        check(self.scale > 0, "scale", self.scale, "above 0")
        check(0 <= self.visitor_dropout < 1, "visitor_dropout", self.visitor_dropout, "in [0, 1)")
        check(self.initial_stddev > 0, "initial_stddev", self.initial_stddev, "above 0")

    @property
    def dense_learning_rate(self) -> float | None:
        """Returns Adam's learning rate for a learnt scale of the scores."""
        return 0.001

    @property
    def least_squares_form(self) -> "MatrixFactorizationConfig":
        """Returns these settings without scale, bias and dropout, so that the scores are plain dot products."""
        plain = replace(self, history_length=0, similarity="dot", scale=1.0, is_scale_learnt=False)
        return replace(plain, has_item_bias=False, visitor_dropout=0.0)

    def check_loss(self, loss: LossConfig) -> None:
        """Raises ValueError if squared error is used with histories, or an L2 penalty without dot products."""
        rule = "0 with loss.kind=squared_error, which needs learnt visitor vectors"
        check(loss.is_ranking or not self.history_length, "model.history_length", self.history_length, rule)
        if self.similarity != "dot":
            super().check_loss(loss)


@dataclass(frozen=True, kw_only=True)
class NeuralConfig(BaseModelConfig):
    """Dense ReLU layers on the concatenated visitor and item vectors."""

    kind: Literal["neural"] = "neural"
    dim: int = 5
    """Number of entries of an embedding vector."""
    hidden: tuple[int, ...] = (80, 40, 20)
    """Units of each dense layer."""
    initial_stddev: float = 0.03
    """Standard deviation of the normal distribution that initialises the tables."""

    def __post_init__(self) -> None:
        check(self.dim >= 1, "dim", self.dim, "at least 1")
        check(bool(self.hidden) and min(self.hidden) >= 1, "hidden", self.hidden, "sizes of at least 1")
        check(self.initial_stddev > 0, "initial_stddev", self.initial_stddev, "above 0")

    def check_loss(self, loss: LossConfig) -> None:
        """Raises ValueError unless the loss is squared error."""
        if loss.is_ranking:
            raise ValueError(
                f"model.kind={self.kind} scores one item at a time, but loss.kind={loss.kind} compares the scores of "
                "many items; use loss.kind=squared_error"
            )


@dataclass(frozen=True, kw_only=True)
class TowersConfig(BaseModelConfig):
    """Two towers: one embeds a visitor's latest items, the other embeds an item.

    The score is scale × cosine of the two vectors.
    """

    kind: Literal["towers"] = "towers"
    dim: int = 64
    """Number of entries of an embedding vector."""
    history_length: int = 10
    """Maximum number of history items that the model reads: the latest ones."""
    dropout: float = 0.2
    """Dropout rate of the item vectors of the history."""
    id_dropout: float = 0.3
    """Share of the items for which a training step drops the id vector and uses only the features. So the features
    learn to represent new items. No effect on items without features."""
    context_dropout: float = 0.25
    """Share of the training rows for which a step drops the event kinds and times of the history, so that the model can
    also rank for requests without kinds and times."""
    visitor_min_events: int | None = None
    """Visitors with at least this many training events have a learnt vector; none: no visitors have one."""
    visitor_dropout: float = 0.5
    """Share of the learnt visitor vectors that a training step drops."""
    return_bonus: float = 3.0
    """Constant that is added to the scores of history items when the model ranks, in addition to the learnt bonuses.
    The learnt ones are too low, because from the second epoch on the model has memorised the next items of the training
    rows."""
    second_stage_cases: int = 48_000
    """Maximum number of cases (a history and its next item) that train the second stage, a network that re-ranks the
    best items. It is trained after the last epoch, on the cases of 80% of the validation split's visitors. It is used
    only if it improves the ranking for the other 20%. 0: no second stage."""
    second_stage_min_cases: int = 2_000
    """Minimum number of cases (a history and its next item) in the validation split. If there are fewer, no second
    stage is trained."""
    initial_scale: float = 8.0
    """Initial value of the learnt scale."""
    initial_stddev: float = 0.05
    """Standard deviation of the normal distribution that initialises the item table."""
    dense_learning_rate: float = 0.001
    """Learning rate of Adam for the dense weights; the tables use `optimizer`."""

    def __post_init__(self) -> None:
        check(self.dim >= 1, "dim", self.dim, "at least 1")
        check(self.history_length >= 1, "history_length", self.history_length, "at least 1")
        for name in ("dropout", "id_dropout", "context_dropout", "visitor_dropout"):
            check(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        least = self.visitor_min_events
        check(least is None or least >= 1, "visitor_min_events", least, "at least 1, or none")
        check(self.second_stage_cases >= 0, "second_stage_cases", self.second_stage_cases, "at least 0")
        cases = self.second_stage_min_cases
        check(cases >= 1, "second_stage_min_cases", cases, "at least 1")
        check(self.initial_scale > 0, "initial_scale", self.initial_scale, "above 0")
        check(self.initial_stddev > 0, "initial_stddev", self.initial_stddev, "above 0")
        check(self.dense_learning_rate > 0, "dense_learning_rate", self.dense_learning_rate, "above 0")

    @property
    def is_sequential(self) -> bool:
        """Returns True, because the history of a training example has only earlier events."""
        return True

    def check_loss(self, loss: LossConfig) -> None:
        """Raises ValueError if the loss predicts event weights instead of ranking items."""
        if not loss.is_ranking:
            raise ValueError(
                f"model.kind={self.kind} cannot be trained with loss.kind={loss.kind}, because this model ranks "
                "items and does not predict event weights; use loss.kind=sampled_softmax"
            )
        super().check_loss(loss)


Powers = TypeVar("Powers", bound=tuple[float, ...])


class CountedConfig(BaseModelConfig, Generic[Powers]):
    """Settings of a model that `solver=count` computes once per epoch, each time with different powers.

    Powers are exponents in the formula of the model. For each field NAME of `powers`, the setting `NAME_power` lists
    one value per epoch. The run keeps the model of the epoch with the best validation result; without validation, that
    of the last epoch. A subclass overrides `_values` if its settings are not named `NAME_power`.
    """

    powers: ClassVar[type[Any]]
    """NamedTuple class with a field per power, such as `recency`; an instance has the powers of one epoch."""
    kind: Any
    """Kind of the model, such as `walk`."""
    max_items: int
    """Number of latest distinct items per timeline that are counted."""
    remedy: ClassVar[str] = "use powers closer to 0"
    """Advice for the error message if weights are not finite."""

    @property
    def combinations(self) -> list[Powers]:
        """Returns the powers (exponents in the model's formula) of each epoch."""
        return [self.powers(*values) for values in zip(*self._values().values(), strict=True)]

    @property
    def num_combinations(self) -> int | None:
        """Returns the number of epochs; each epoch tries one combination of powers."""
        return len(self.combinations)

    @property
    def has_sums(self) -> bool:
        """Returns True, because a score of this model is a sum of weights."""
        return True

    def with_combination(self, number: int) -> Self:
        """Returns a copy of these settings that has only the powers of epoch `number`."""
        return type(self)(
            **{**vars(self), **{name: values[number : number + 1] for name, values in self._values().items()}}
        )

    def check_powers(self) -> None:
        """Raises ValueError if powers are missing or negative, or if not all powers have the same number of values."""
        first, *_ = named = self._values()
        for name, values in named.items():
            check(bool(values) and min(values) >= 0, name, _join(values), "numbers of at least 0")
            rule = f"as many numbers as model.{first}, {len(named[first])}"
            check(len(values) == len(named[first]), name, _join(values), rule)

    def check_loss(self, loss: LossConfig) -> None:
        """Raises ValueError if the loss predicts event weights instead of ranking items."""
        if not loss.is_ranking:
            raise ValueError(
                f"model.kind={self.kind} cannot be used with loss.kind={loss.kind}, because this model ranks items "
                "and does not predict event weights; use loss.kind=sampled_softmax"
            )
        super().check_loss(loss)

    def _values(self) -> dict[str, tuple[float, ...]]:
        """Returns the values of each power, by the name of its setting."""
        return {f"{name}_power": getattr(self, f"{name}_power") for name in self.powers._fields}


class WalkPowers(NamedTuple):
    """The powers (exponents) that an item walk tries in one epoch; see `WalkConfig`."""

    item: float
    """Exponent of the number of visitors with events on the history item."""
    neighbour: float
    """Exponent of the number of visitors with events on the scored item."""
    visitor: float
    """Exponent of the number of items of a visitor who has events on both items."""
    recency: float
    """Exponent of 1 + age. The age of a history entry is the number of later entries."""

    def __str__(self) -> str:
        return ", ".join(f"{name}_power {value:g}" for name, value in self._asdict().items())


@dataclass(frozen=True, kw_only=True)
class WalkConfig(CountedConfig[WalkPowers]):
    """Scores items by the visitors they share with the history's items; needs `solver=count`.

    An item's score is the sum of the weights from the history's items to it. If all powers are 0, the weight between
    two items is the number of visitors who have events on both. The powers reduce the weights of popular items, and the
    influence of visitors with many items. Each power has one value per epoch; see `CountedConfig`.
    """

    powers = WalkPowers
    kind: Literal["walk"] = "walk"
    item_power: tuple[float, ...] = (0.5, 0.35, 0.5)
    """Divides the weights from a history item by (number of its visitors) ** item_power. Each power has one value per
    epoch, and validation chooses the epoch."""
    neighbour_power: tuple[float, ...] = (0.5, 0.15, 0.25)
    """Divides the weights to a scored item by (number of its visitors) ** neighbour_power. Higher values recommend
    rarer items."""
    visitor_power: tuple[float, ...] = (0.0, 0.5, 0.5)
    """Each visitor of two items adds 1 / (number of the visitor's items) ** visitor_power to the weight between
    them."""
    recency_power: tuple[float, ...] = (1.0, 0.0, 1.0)
    """Divides the weights of a history entry by (1 + number of later entries) ** recency_power."""
    num_neighbours: int = 50
    """Number of neighbours kept per item: those with the largest weights."""
    adds_repeats: ClassVar[bool] = True
    """Whether every occurrence of an item in a history adds to the scores."""
    max_items: int = 500
    """Two limits: training uses only the latest `max_items` distinct items of a visitor, and ranking uses only the
    latest `max_items` entries of a history. The training time per visitor grows with the square of the number of
    their items."""

    def __post_init__(self) -> None:
        self.check_powers()
        check(self.num_neighbours >= 1, "num_neighbours", self.num_neighbours, "at least 1")
        check(self.max_items >= 1, "max_items", self.max_items, "at least 1")


class SessionKnnPowers(NamedTuple):
    """The powers (exponents) that a session kNN tries in one epoch; see `SessionKnnConfig`."""

    item: float
    """Exponent of the number of timelines that contain the history item."""
    length: float
    """Exponent of the number of items in the compared timeline."""
    recency: float
    """Exponent of 1 + age. The age of a history entry is the number of later entries."""

    def __str__(self) -> str:
        return ", ".join(f"{name}_power {value:g}" for name, value in self._asdict().items())


@dataclass(frozen=True, kw_only=True)
class SessionKnnConfig(CountedConfig[SessionKnnPowers]):
    """Finds the timelines most similar to the history, and scores their items; needs `solver=count`.

    The similarity of a timeline is the sum of the weights of the history entries with an item that it contains. Each
    power has one value per epoch; see `CountedConfig`.
    """

    powers = SessionKnnPowers
    kind: Literal["session_knn"] = "session_knn"
    item_power: tuple[float, ...] = (0.0, 0.0, 0.5, 0.5)
    """Divides the weight of a history entry by (number of timelines with its item) ** item_power. Each power has one
    value per epoch, and validation chooses the epoch."""
    length_power: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5)
    """Divides the similarity of a timeline, the sum of the weights of the history entries with items in it, by (number
    of its items) ** length_power."""
    recency_power: tuple[float, ...] = (1.0, 0.0, 1.0, 0.5)
    """Divides the weight of a history entry by (1 + number of later entries) ** recency_power."""
    num_neighbours: int = 200
    """Number of most similar timelines that add their similarities to the scores of their items."""
    max_timelines: int = 1000
    """Maximum number of timelines that are compared with the history per history item: the latest that contain it."""
    max_items: int = 500
    """Maximum number of items per timeline: its latest distinct items. Other items are ignored."""
    max_entries: int = 100
    """Maximum number of history entries that are used: the latest ones."""

    def __post_init__(self) -> None:
        self.check_powers()
        for name in ("num_neighbours", "max_timelines", "max_items", "max_entries"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")


class EaseValues(NamedTuple):
    """The settings `l2` and `recency_power` that EASE uses in one epoch; see `EaseConfig`."""

    l2: float
    """L2 penalty on the weights."""
    recency: float
    """Exponent of 1 + age. The age of a history entry is the number of later entries."""

    def __str__(self) -> str:
        return f"l2 {self.l2:g}, recency_power {self.recency:g}"


@dataclass(frozen=True, kw_only=True)
class EaseConfig(CountedConfig[EaseValues]):
    """Predicts each item of a visitor from their other items, by linear regression; needs `solver=count`.

    `l2` and `recency_power` have one value per epoch; see `CountedConfig`.
    """

    powers = EaseValues
    kind: Literal["ease"] = "ease"
    l2: tuple[float, ...] = (300.0, 1000.0, 1000.0, 3000.0)
    """L2 penalty on the weights; a higher value reduces the weights of rare items most. `l2` and `recency_power` have
    one value per epoch, and validation chooses the epoch. An epoch with the same `l2` as the epoch before reuses its
    weights, because they do not depend on `recency_power`."""
    recency_power: tuple[float, ...] = (0.0, 0.0, 0.5, 0.0)
    """Divides the weights of a history entry by (1 + number of later entries) ** recency_power."""
    num_frequent_items: int = 5_000
    """Number of items with weights: those with the most training events. Other items rank last, by popularity. Training
    inverts a matrix that takes 4 bytes of memory per pair of these items: 100 MB for 5,000 items. The time grows with
    the cube of their number."""
    num_neighbours: int = 500
    """Number of neighbours kept per item: those with the largest absolute weights."""
    max_items: int = 1_000
    """Two limits: training uses only the latest `max_items` distinct items of a visitor, and ranking uses only the
    latest `max_items` entries of a history."""
    adds_repeats: ClassVar[bool] = False
    """Whether every occurrence of an item in a history adds to the scores."""
    remedy: ClassVar[str] = "raise model.l2"
    """Advice for the error message if weights are not finite."""

    def __post_init__(self) -> None:
        self.check_powers()
        check(min(self.l2) > 0, "l2", _join(self.l2), "numbers above 0")
        for name in ("num_frequent_items", "num_neighbours", "max_items"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")

    def _values(self) -> dict[str, tuple[float, ...]]:
        return {"l2": self.l2, "recency_power": self.recency_power}


def _join(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))


ModelConfig = MatrixFactorizationConfig | NeuralConfig | TowersConfig | WalkConfig | SessionKnnConfig | EaseConfig
"""The settings of each model: a `kind` and the properties of `BaseModelConfig`."""
