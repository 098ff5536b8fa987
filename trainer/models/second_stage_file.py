"""Reads and writes a trained second stage: second_stage.npz contains its weights, second_stage.json its metrics."""

import hashlib
import io
import json
import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from common import storage
from common.errors import explain_damage
from common.json_files import encode_json
from trainer.models.interface import InferenceModel
from trainer.models.second_stage import ItemFacts, Layers, RerankedTowers, SecondStage
from trainer.models.towers import TowersInference
from trainer.runs.checkpoint import Weights
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SecondStageRecord:
    """Content of second_stage.json: the validation metric of the towers with and without the second stage."""

    step: int
    """Step of the towers' checkpoint that the second stage belongs to."""
    metric: str
    """Name of the metric that is compared, such as `ndcg@20`."""
    towers: float
    """Metric of the towers alone, on cases that neither the towers nor the second stage were trained on."""
    second_stage: float
    """Metric of the towers with the second stage, on the same cases."""
    cases: int
    """Number of cases that the metric is measured on."""
    sha256: str
    """Checksum of the .npz file."""

    @property
    def is_used(self) -> bool:
        """Whether the second stage improves the validation metric; if not, the run does not use the second stage."""
        return self.second_stage > self.towers

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics without and with the second stage, the number of cases and `is_used`, as JSON values."""
        values = {"is_used": self.is_used, "metric": self.metric, "cases": self.cases}
        return values | {"towers": self.towers, "second_stage": self.second_stage}


def encode_second_stage(stage: SecondStage) -> bytes:
    """Encodes the arrays of a second stage as a .npz file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {f"walk_{name}": np.asarray(table) for name, table in stage.walk.tables.items()}
    arrays |= {"walk_powers": stage.walk.dense[0]} | stage.facts._asdict() | stage.layers._asdict()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write_second_stage(workdir: str, content: bytes, record: SecondStageRecord) -> None:
    """Writes second_stage.npz, then second_stage.json.

    Args:
      workdir: directory of the run.
      content: content of the .npz file, from `encode_second_stage`.
      record: content of the JSON file.
    """
    storage.check_ownership(workdir)
    storage.write_bytes(RunLayout(workdir).second_stage_arrays, content)
    storage.write_bytes(RunLayout(workdir).second_stage, encode_json(asdict(record)))


def read_record_of_stage(workdir: str) -> SecondStageRecord | None:
    """Reads second_stage.json; returns None if the run has no complete second stage.

    Raises:
      ValueError: the file is damaged.
    """
    path = RunLayout(workdir).second_stage
    if not storage.exists(path):
        return None
    with explain_damage(path, "remove it and run `train` again"):
        return SecondStageRecord(**json.loads(storage.read_bytes(path)))


def copy_second_stage(run: str, workdir: str, step: int) -> None:
    """Copies the second stage of a run, if it has one, to another run.

    Args:
      run: directory of the run to copy from.
      workdir: directory of the run that gets the copy.
      step: step of the checkpoint in `workdir` that the copy belongs to.
    """
    record = read_record_of_stage(run)
    if record is not None:
        content = storage.read_bytes(RunLayout(run).second_stage_arrays)
        write_second_stage(workdir, content, replace(record, step=step))


def with_second_stage(model: InferenceModel, workdir: str, step: int, num_items: int) -> InferenceModel:
    """Adds the second stage of a run to its model.

    Args:
      model: the model with the weights of the checkpoint.
      workdir: directory of the run.
      step: step of the checkpoint.
      num_items: the number of items, I.

    Returns:
      `model` with the second stage, or `model` itself if the run has none or does not use it. If the second stage
      belongs to another checkpoint: `model` itself, and a warning is logged.

    Raises:
      ValueError: a file of the second stage is damaged.
    """
    record = read_record_of_stage(workdir)
    if record is None or not record.is_used or not isinstance(model, TowersInference):
        return model
    if record.step != step:
        log.warning(
            "the second stage of %s belongs to the checkpoint of step %d, so the model of step %d ranks without it; "
            "run the same `train` command again to train a second stage for this step",
            workdir,
            record.step,
            step,
        )
        return model
    reranked = RerankedTowers(model, num_items)
    reranked.fill_stage(_read_stage(workdir, record.sha256))
    return reranked


def _read_stage(workdir: str, sha256: str) -> SecondStage:
    path = RunLayout(workdir).second_stage_arrays
    content = storage.read_bytes(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged; remove {RunLayout(workdir).second_stage} and run `train` again")
    arrays = dict(np.load(io.BytesIO(content)))
    walk = Weights({name: arrays[f"walk_{name}"] for name in ("neighbour", "weight")}, [arrays["walk_powers"]])
    facts = ItemFacts(*(arrays[name] for name in ItemFacts._fields))
    return SecondStage(walk, facts, Layers(*(arrays[name] for name in Layers._fields)))
