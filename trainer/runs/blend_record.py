"""blend.json: the parts of a run's model and their weights, which validation chose after training."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from common import storage
from trainer.runs.layout import RunLayout

OWN_RUN = "."
"""Name of the part of a blend that is the run itself."""
RETURN_FEATURES = ("is_seen", "frequency", "recency")
"""Features of the items of a visitor's history; see `models.blend.return_features`."""


@dataclass(frozen=True, kw_only=True)
class BlendWeights:
    """The weights of a blend for one kind of ranking, with P parts."""

    parts: tuple[float, ...]
    """P weights of the parts' scores."""
    popularity: float = 0.0
    """Weight of log(n + 0.25), where n counts the training events of an item."""
    trend: float = 0.0
    """Weight of the trend of an item."""
    returns: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Weights of `RETURN_FEATURES`."""

    def to_array(self) -> np.ndarray:
        """[P + 5] float32: parts, popularity, trend, returns."""
        return np.array([*self.parts, self.popularity, self.trend, *self.returns], np.float32)

    @classmethod
    def from_array(cls, weights: np.ndarray) -> "BlendWeights":
        """The inverse of `to_array`."""
        *parts, popularity, trend = weights[: -len(RETURN_FEATURES)].tolist()
        first, second, third = weights[-len(RETURN_FEATURES) :].tolist()
        return cls(parts=tuple(parts), popularity=popularity, trend=trend, returns=(first, second, third))


@dataclass(frozen=True, kw_only=True)
class BlendRecord:
    """The blend of a run."""

    parts: tuple[str, ...]
    """P directories of runs, relative to this run; `.` is this run itself."""
    steps: tuple[int, ...]
    """Steps of the checkpoints of the P parts."""
    half_life_days: float
    """Half-life of the trend."""
    seen_hidden: BlendWeights
    """Weights for rankings that hide seen items."""
    seen_shown: BlendWeights
    """Weights for rankings that show them."""
    validation: dict[str, Any]
    """For each ranking: the number of `cases`, the NDCG@20 of the `blend`, and in `parts` the NDCG@20 of each tried
    part alone, by directory. Null without cases."""

    def describe_weights(self, ranking: str, name: str) -> list[tuple[str, float]]:
        """Returns the features with a nonzero weight in a ranking, and these weights.

        Args:
          ranking: `seen_hidden` or `seen_shown`.
          name: name of the run itself.
        """
        weights: BlendWeights = getattr(self, ranking)
        names = [
            *(part_title(part, name) for part in self.parts),
            "popularity",
            f"trend, half-life {self.half_life_days:g} days",
            *(f"returns: {feature.replace('_', ' ')}" for feature in RETURN_FEATURES),
        ]
        return [(title, weight) for title, weight in zip(names, weights.to_array().tolist(), strict=True) if weight]


def part_title(part: str, name: str) -> str:
    """The name of a part for people: `walk` for `parts/walk`; for the run itself, `name`."""
    return name if part == OWN_RUN else part.rpartition("/")[2]


def write_blend(record: BlendRecord, workdir: str) -> None:
    """Writes `blend.json`."""
    storage.write_bytes(
        RunLayout(workdir).blend, (json.dumps(asdict(record), indent=2, allow_nan=False) + "\n").encode()
    )


def read_blend(workdir: str) -> BlendRecord | None:
    """Reads the blend of the run at `workdir`; None if there is none.

    Raises:
      ValueError: the file is damaged.
    """
    path = RunLayout(workdir).blend
    try:
        values = json.loads(storage.read_bytes(path))
        weights = {name: _read_weights(values[name]) for name in ("seen_hidden", "seen_shown")}
        lists = {name: tuple(values[name]) for name in ("parts", "steps")}
        return BlendRecord(**{**values, **weights, **lists})
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); train the run again") from error


def _read_weights(values: dict[str, Any]) -> BlendWeights:
    return BlendWeights(**{**values, "parts": tuple(values["parts"]), "returns": tuple(values["returns"])})
