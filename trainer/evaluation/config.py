"""Settings of an evaluation, as frozen dataclasses; `common.settings` reads them from `key=value`."""

from dataclasses import dataclass, field

from common.settings import check
from trainer.config.run import TargetConfig


@dataclass(frozen=True, kw_only=True)
class NeighboursConfig:
    """The nearest-neighbour baselines."""

    num_neighbours: int = 200
    """Nearest neighbours that are kept: items of each item, training timelines of each history."""
    half_life_rows: float | None = None
    """Rows of the history after which the weight of an item halves; none: weights of 1 / (1 + age in rows)."""
    shrinkage: float = 0.0
    """Added to the product of two items' norms, so that similarities from few timelines are lower (Dacrema et al.,
    RecSys 2019)."""

    def __post_init__(self) -> None:
        check(self.num_neighbours >= 1, "neighbours.num_neighbours", self.num_neighbours, "at least 1")
        half_life = self.half_life_rows
        check(half_life is None or half_life > 0, "neighbours.half_life_rows", half_life, "above 0, or none")
        check(self.shrinkage >= 0, "neighbours.shrinkage", self.shrinkage, "at least 0")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of the cases, their targets and the baselines; a model is evaluated as it was trained."""

    max_cases: int | None = None
    """Maximum number of cases of each protocol; of more, a random sample is evaluated. None: as many as give 10⁹
    scores (cases × items), some ten seconds per system on two cores."""
    evaluate: TargetConfig = field(default_factory=TargetConfig)
    """Which items are relevant; without kinds, those that the run's validation counts."""
    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
    """The nearest-neighbour baselines."""

    def __post_init__(self) -> None:
        check(self.max_cases is None or self.max_cases >= 1, "max_cases", self.max_cases, "at least 1, or none")
