"""Settings of the optimizers and of alternating least squares."""

from dataclasses import dataclass
from typing import Literal

from common.settings import check


@dataclass(frozen=True, kw_only=True)
class AdagradConfig:
    """Adagrad (Duchi et al., JMLR 2011); a training step updates only the table rows that it reads."""

    kind: Literal["adagrad"] = "adagrad"
    learning_rate: float = 0.1
    """Learning rate of the tables, and of the dense weights of models without a separate rate."""
    initial_accumulator: float = 1e-9
    """Initial value of the accumulator, the sum of squared gradients. It must be far below a typical squared gradient;
    otherwise rows hardly change. Squared gradients are only about 1e-7, because the loss is a mean over the batch."""
    epsilon: float = 1e-7
    """Added to the square root of the accumulator, to avoid division by zero."""
    is_row_wise: bool = False
    """Whether a table row has only one accumulator, the sum of its mean squared gradients, instead of one per entry.
    This halves the memory of the tables and their accumulators."""
    warmup_steps: int = 0
    """Steps of linear warmup of the learning rates, for tables and dense weights."""

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        check(self.initial_accumulator >= 0, "initial_accumulator", self.initial_accumulator, "at least 0")
        check(self.epsilon > 0, "epsilon", self.epsilon, "above 0")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Lazy Adam (Kingma and Ba, ICLR 2015); a training step updates only the table rows that it reads."""

    kind: Literal["adam"] = "adam"
    learning_rate: float = 0.001
    """Learning rate of the tables, and of the dense weights of models without a separate rate."""
    beta_1: float = 0.9
    """Decay of the mean of the gradients."""
    beta_2: float = 0.999
    """Decay of the mean of the squared gradients."""
    epsilon: float = 1e-7
    """Added to the square root of the mean squared gradient, to avoid division by zero."""
    warmup_steps: int = 0
    """Steps of linear warmup of the learning rates, for tables and dense weights."""

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        check(0 <= self.beta_1 < 1, "beta_1", self.beta_1, "in [0, 1)")
        check(0 <= self.beta_2 < 1, "beta_2", self.beta_2, "in [0, 1)")
        check(self.epsilon > 0, "epsilon", self.epsilon, "above 0")
        check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "at least 0")


OptimizerConfig = AdagradConfig | AdamConfig


@dataclass(frozen=True, kw_only=True)
class AlternatingConfig:
    """Weighted alternating least squares; see `models.least_squares` for the objective."""

    unobserved_weight: float = 0.01
    """Weight of a (visitor, item) pair without events; also added to the weights of pairs with events."""
    l2: float = 0.01
    """L2 penalty λ of the vectors, before `l2_power` scales it."""
    l2_power: float = 0.0
    """Scales the penalty of each vector: λ = l2 × (n + unobserved_weight × N) ** l2_power; 0: λ = l2. For a visitor, n
    is the number of their items, and N is the number of all items; for an item, n and N are numbers of visitors."""
    weight_power: float = 1.0
    """The weight of a pair is the sum of its events' weights, raised to this power; 0: every pair with events has the
    weight 1."""
    batch_entries: int = 32_768
    """Number of (visitor, item) pairs with events per batch, padding included; a replica solves one batch at a time."""

    def __post_init__(self) -> None:
        check(self.unobserved_weight > 0, "unobserved_weight", self.unobserved_weight, "above 0")
        check(self.l2 > 0, "l2", self.l2, "above 0")
        check(0 <= self.l2_power <= 1, "l2_power", self.l2_power, "in [0, 1]")
        check(0 <= self.weight_power <= 1, "weight_power", self.weight_power, "in [0, 1]")
        check(self.batch_entries >= 1, "batch_entries", self.batch_entries, "at least 1")
