"""What a model is measured beside, as frozen dataclasses; `common.settings` reads them from `key=value`."""

from dataclasses import dataclass, field

from common.settings import check


@dataclass(frozen=True, kw_only=True)
class NeighboursConfig:
    """The nearest-neighbour baselines.

    num_neighbours    nearest that are kept: items of an item, training timelines of a history
    half_life_rows    an item of the history weighs half as much as one so many rows younger; none: 1 / (1 + age)
    shrinkage         added to the product of two items' lengths: what few timelines tell counts less (Dacrema et al.,
                      RecSys 2019)
    """

    num_neighbours: int = 200
    half_life_rows: float | None = None
    shrinkage: float = 0.0

    def __post_init__(self) -> None:
        check(self.num_neighbours >= 1, "neighbours.num_neighbours", self.num_neighbours, "at least 1")
        half_life = self.half_life_rows
        check(half_life is None or half_life > 0, "neighbours.half_life_rows", half_life, "above 0, or none")
        check(self.shrinkage >= 0, "neighbours.shrinkage", self.shrinkage, "at least 0")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What a model is measured beside; of the model itself an evaluation changes nothing."""

    neighbours: NeighboursConfig = field(default_factory=NeighboursConfig)
