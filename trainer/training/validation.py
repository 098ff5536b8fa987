"""The validation metric, which selects the best checkpoint of a run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from contract.schema import Split
from trainer.config.losses import SquaredErrorConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases, build_cases, most_common_cases, next_items
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.ratings import rating_mse, target_rows
from trainer.models.interface import InferenceModel

log = logging.getLogger(__name__)

LIST_LENGTH = 20
MAX_CASES = 5000
"""Maximum number of cases per validation: enough to distinguish epochs, but only a small part of the training time."""


class Measure(Protocol):
    """Function that measures the validation metric of a model; all workers call it together."""

    def __call__(self, model: InferenceModel, on_chunk: Callable[[], None] = ..., /) -> float:
        """Returns the metric of `model`; `on_chunk` is called often, and its exceptions end the measurement."""


@dataclass(frozen=True)
class Validator:
    """The validation metric of a run, which selects the best of its checkpoints."""

    metric: str
    """Name of the metric, such as `ndcg@20`."""
    is_higher_better: bool
    """Whether a higher value is better."""
    measure: Measure
    """Computes the metric of a model."""
    visitors: np.ndarray
    """Indices of the visitors that the metric is measured on; the model needs no vectors of other visitors."""
    num_cases: int
    """Number of cases, or of rows for mean squared error."""


def _ignore() -> None:
    """Does nothing; default of the parameter `on_chunk`."""


def make_validator(config: RunConfig, dataset: Dataset, replicas: Replicas | None = None) -> Validator | None:
    """Chooses the validation metric for models other than sequence models.

    Models that predict event weights get the mean squared error; others get NDCG for returning visitors. If hardly any
    visitor returns (see `most_common_cases`), models with `solver=count` get NDCG for next items.

    Args:
      config: settings of the run.
      dataset: dataset of the run.
      replicas: replicas of all workers; each worker measures on a part of the data. None: this process works alone.

    Returns:
      The metric; None if there is no validation split, or if it has no cases.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    if isinstance(config.loss, SquaredErrorConfig):
        weights, rows = config.loss.weights_by_kind(dataset.manifest), target_rows(dataset, Split.VALIDATION)
        return Validator(
            "mse",
            False,
            lambda model, on_chunk=_ignore: rating_mse(model, rows, weights, replicas, on_chunk),
            rows.visitor,
            len(rows),
        )
    if config.solver == "count":
        return _make_count_validator(config, dataset, replicas)
    cases = build_cases(dataset, Split.VALIDATION, kinds=config.evaluate.kinds)
    reason = "in the validation split, no visitor with earlier events has an event with an item that is new to them"
    return _ranking_validator(cases, "returning visitors", reason, replicas)


def _make_count_validator(config: RunConfig, dataset: Dataset, replicas: Replicas | None) -> Validator | None:
    cases = most_common_cases(dataset, Split.VALIDATION, config.evaluate.kinds)
    task = "returning visitors" if cases.hides_seen else "next items"
    return _ranking_validator(cases, task, "no visitor of the validation split has earlier events", replicas)


def make_next_item_validator(config: RunConfig, dataset: Dataset, replicas: Replicas | None = None) -> Validator | None:
    """Returns the validation metric of sequence models: NDCG for next items.

    Args:
      config: settings of the run.
      dataset: dataset of the run.
      replicas: replicas of all workers; each worker measures on a part of the data. None: this process works alone.

    Returns:
      The metric; None if there is no validation split, or if it has no cases.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    cases = build_cases(dataset, Split.VALIDATION, next_items, kinds=config.evaluate.kinds)
    reason = "in the validation split, no visitor with earlier events has an event with an item of the catalogue"
    return _ranking_validator(cases, "next items", reason, replicas)


def _ranking_validator(cases: Cases, task: str, reason_if_empty: str, replicas: Replicas | None) -> Validator | None:
    if not len(cases):
        log.warning("%s, so the last checkpoint is used as the best", reason_if_empty)
        return None
    name = f"ndcg@{LIST_LENGTH}"
    sample = cases.sample(MAX_CASES, seed=0)
    # logged with its task, because values of different tasks cannot be compared
    log.info("each validation measures %s for %d %s of the validation split", name, len(sample), task)
    return Validator(name, True, _RankingMeasure(sample, name, replicas), sample.visitor, len(sample))


class _RankingMeasure:
    """Ranks the same cases at each validation; compiles only once per model."""

    def __init__(self, cases: Cases, metric: str, replicas: Replicas | None) -> None:
        self._cases, self._metric, self._replicas = cases, metric, replicas
        self._compiled: tuple[InferenceModel, Evaluator] | None = None

    def __call__(self, model: InferenceModel, on_chunk: Callable[[], None] = _ignore) -> float:
        if self._compiled is None or self._compiled[0] is not model:
            self._compiled = model, Evaluator(model, self._cases, [LIST_LENGTH], replicas=self._replicas)
        return self._compiled[1].measure(on_chunk).mean(self._metric)
