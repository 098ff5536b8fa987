"""blend.json: the models (parts) that a run blends, and their weights, which validation chose after training."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from common import storage
from common.errors import explain_damage
from common.json_files import encode_json
from trainer.runs.layout import RunLayout

OWN_RUN = "."
"""Name of the blended run itself in the list of its parts."""
RETURN_FEATURES = ("is_seen", "frequency", "recency", "recency_in_days")
"""Features of an item in a visitor's history; see `models.blend.return_features`."""
RANKINGS = ("new_items", "returning", "in_session")
"""The kinds of ranking, which have separate weights. `new_items` excludes seen items. The others include them:
`returning` is for a visitor who comes back after at least half an hour, `in_session` for a visitor within a session."""


@dataclass(frozen=True, kw_only=True)
class BlendWeights:
    """The weights of a blend of P models for one kind of ranking."""

    parts: tuple[float, ...]
    """P weights of the parts' scores."""
    popularity: float = 0.0
    """Weight of log(n + 0.25), where n is the number of training events of an item."""
    trend: float = 0.0
    """Weight of an item's trend; see `data.trend`."""
    half_life_days: float
    """Half-life of the trend, in days."""
    returns: tuple[float, ...] = (0.0,) * len(RETURN_FEATURES)
    """Weights of `RETURN_FEATURES`, in the same order."""

    def __post_init__(self) -> None:
        if len(self.returns) != len(RETURN_FEATURES):
            raise ValueError(
                f"the field `returns` must have one weight for each of {', '.join(RETURN_FEATURES)}, got {self.returns}"
            )

    def to_array(self) -> np.ndarray:
        """Returns [P + 6] float32: weights of P models, of the popularity, of the trend and of `RETURN_FEATURES`."""
        return np.array([*self.parts, self.popularity, self.trend, *self.returns], np.float32)

    @classmethod
    def from_array(cls, weights: np.ndarray, half_life_days: float) -> "BlendWeights":
        """Builds the weights from an array that `to_array` returned."""
        *parts, popularity, trend = weights[: -len(RETURN_FEATURES)].tolist()
        returns = weights[-len(RETURN_FEATURES) :].tolist()
        return cls(
            parts=tuple(parts),
            popularity=popularity,
            trend=trend,
            half_life_days=half_life_days,
            returns=tuple(returns),
        )


@dataclass(frozen=True, kw_only=True)
class BlendRecord:
    """The content of `blend.json`: the models of a blend, their weights and validation results."""

    parts: tuple[str, ...]
    """Directories of the P blended runs, relative to this run; `.` is this run itself."""
    steps: tuple[int, ...]
    """Step of the checkpoint of each part."""
    weights: dict[str, BlendWeights]
    """The weights of each of the `RANKINGS`."""
    validation: dict[str, Any]
    """Validation results of each of the `RANKINGS`; None if the validation split has no cases for it. Else:

    - `cases`: number of cases.
    - `blend`: NDCG@20 of the blend.
    - `parts`: NDCG@20 of each tried model alone, by its directory.
    - `frequency`: NDCG@20 of the items sorted by their frequency in the visitor's history; None for `new_items`.
    """

    def describe_weights(self, ranking: str, name: str) -> list[tuple[str, float]]:
        """Returns the title and weight of each model and each feature in the blend; skips zero weights.

        Args:
          ranking: one of `RANKINGS`.
          name: name of the blend's run.
        """
        weights = self.weights[ranking]
        days = weights.half_life_days
        names = [
            *(part_title(part, name) for part in self.parts),
            "popularity",
            f"trend, half-life {days:g} day{'s' * (days != 1)}",
            *(f"returns: {feature.replace('_', ' ')}" for feature in RETURN_FEATURES),
        ]
        return [(title, weight) for title, weight in zip(names, weights.to_array().tolist(), strict=True) if weight]


def half_lives_of(weights: Mapping[str, BlendWeights]) -> tuple[float, ...]:
    """Returns the half-lives of the item trends in a blend, in days, ascending.

    Skips trends with weight 0, unless all trends have weight 0.
    """
    used = {each.half_life_days for each in weights.values() if each.trend}
    return tuple(sorted(used or {each.half_life_days for each in weights.values()}))


def part_title(part: str, name: str) -> str:
    """Returns the title of a part in reports, for example `walk` for the directory `parts/walk`.

    Args:
      part: an entry of `BlendRecord.parts`.
      name: name of the blend's run; also the title of the part `.`, which is this run itself.
    """
    return name if part == OWN_RUN else part.rpartition("/")[2]


def write_blend(record: BlendRecord, workdir: str) -> None:
    """Writes the record of a blend to `blend.json`."""
    storage.check_ownership(workdir)
    storage.write_bytes(RunLayout(workdir).blend, encode_json(asdict(record)))


def read_blend(workdir: str) -> BlendRecord | None:
    """Reads `blend.json`; returns None if the run is not a blend.

    Raises:
      ValueError: the file is damaged.
    """
    path = RunLayout(workdir).blend
    if not storage.exists(path):
        return None
    with explain_damage(path, "remove it and run `train` again"):
        values = json.loads(storage.read_bytes(path))
        weights = {name: _read_weights(values["weights"][name]) for name in RANKINGS}
        lists = {name: tuple(values[name]) for name in ("parts", "steps")}
        return BlendRecord(**{**values, "weights": weights, **lists})


def _read_weights(values: dict[str, Any]) -> BlendWeights:
    return BlendWeights(**{**values, "parts": tuple(values["parts"]), "returns": tuple(values["returns"])})
