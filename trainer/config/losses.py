"""Settings of the losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from common.settings import check

if TYPE_CHECKING:  # k8s/submit.py reads the settings without any packages, but the contract needs fsspec
    from contract.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class SquaredErrorConfig:
    """Squared error between the score of a (visitor, item) pair and the weight of the event."""

    kind: Literal["squared_error"] = "squared_error"
    event_weights: tuple[float, ...] | None = None
    """Weights to predict, one per event kind of the dataset; none: the weights in the dataset or, if it has none, 1 for
    its first kind, 2 for the second one, and so on."""

    def __post_init__(self) -> None:
        _check_weights(self.event_weights)

    def weights_by_kind(self, manifest: "Manifest") -> tuple[float, ...]:
        """Returns the weight to predict for each event kind of a dataset."""
        return _weights_by_kind(self.event_weights, manifest, default=range(1, len(manifest.event_kinds) + 1))

    @property
    def is_ranking(self) -> bool:
        """Returns False, because a score predicts the weight of an event."""
        return False

    @property
    def half_life_days(self) -> float | None:
        """Returns None, because the weight of an example does not depend on its age."""
        return None

    @property
    def l2(self) -> float:
        """Returns 0, because this loss has no L2 penalty."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class SampledSoftmaxConfig:
    """Cross-entropy of the positive against in-batch and sampled negatives."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    num_negatives: int = 1024
    """Sampled negatives per step, the same on every replica."""
    negative_power: float = 0.5
    """Items are sampled in proportion to (training events + 1) ** negative_power; 0: uniformly."""
    uniform_share: float = 0.0
    """Share of the sampled negatives that are drawn uniformly, without negative_power, so that rare items occur too."""
    in_batch_negatives: bool = True
    """Whether the positives of the other rows in the batch are also negatives."""
    max_in_batch_negatives: int = 8192
    """Maximum number of in-batch negatives. In a larger global batch, only the positives of evenly spaced rows are
    in-batch negatives, equally many from each replica. All replicas use the same ones."""
    event_weights: tuple[float, ...] | None = None
    """Weights of training examples, one per event kind of the dataset; none: the weights in the dataset, or 1 if it has
    none."""
    half_life_days: float | None = None
    """Half-life of the weight of an example, in days; none: weights do not depend on age."""
    l2: float = 0.0
    """L2 penalty on the table rows that a step reads: those of visitors, positives and sampled negatives. For dot
    products only, because a cosine does not depend on the length of a vector."""

    def __post_init__(self) -> None:
        check(self.num_negatives >= 0, "num_negatives", self.num_negatives, "at least 0")
        check(0 <= self.negative_power <= 1, "negative_power", self.negative_power, "in [0, 1]")
        check(0 <= self.uniform_share <= 1, "uniform_share", self.uniform_share, "in [0, 1]")
        rule = "above 0 if loss.in_batch_negatives is false, as the loss needs negatives"
        check(self.in_batch_negatives or self.num_negatives > 0, "num_negatives", self.num_negatives, rule)
        most = self.max_in_batch_negatives
        check(most >= 1, "max_in_batch_negatives", most, "at least 1 (loss.in_batch_negatives=false turns them off)")
        half_life = self.half_life_days
        check(half_life is None or half_life > 0, "half_life_days", half_life, "above 0, or none")
        check(self.l2 >= 0, "l2", self.l2, "at least 0")
        _check_weights(self.event_weights)

    def weights_by_kind(self, manifest: "Manifest") -> tuple[float, ...]:
        """Returns the weight of a training example for each event kind of a dataset."""
        return _weights_by_kind(self.event_weights, manifest, default=[1] * len(manifest.event_kinds))

    @property
    def is_ranking(self) -> bool:
        """Returns True, because scores rank items and do not predict weights."""
        return True


LossConfig = SquaredErrorConfig | SampledSoftmaxConfig


def _check_weights(weights: tuple[float, ...] | None) -> None:
    if weights is not None:
        is_valid = min(weights, default=0) >= 0 and max(weights, default=0) > 0
        check(is_valid, "event_weights", weights, "numbers of at least 0, not all 0")


def _weights_by_kind(
    given: tuple[float, ...] | None, manifest: "Manifest", *, default: Sequence[float]
) -> tuple[float, ...]:
    """Returns one weight per event kind: `given`, else those of the dataset, else `default`.

    Raises:
      ValueError: `given` does not have one weight for each event kind.
    """
    weights, kinds = given or manifest.event_weights or tuple(map(float, default)), manifest.event_kinds
    rule = f"{len(kinds)} numbers, one for each event kind of the dataset ({', '.join(kinds)})"
    check(len(weights) == len(kinds), "loss.event_weights", weights, rule)
    return weights
