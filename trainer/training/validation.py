"""The figure on the validation split that picks a run's best checkpoint."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from contract.schema import Split
from trainer.config.losses import SquaredErrorConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases, build_cases, next_items
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.ratings import rating_mse, target_rows
from trainer.models.interface import InferenceModel

log = logging.getLogger(__name__)

LIST_LENGTH = 20
MAX_CASES = 5000
"""Cases that are ranked for after an epoch: enough to tell epochs apart, few enough not to be felt."""


class Measure(Protocol):
    """A figure of a model's present variables; all workers ask for it together."""

    def __call__(self, model: InferenceModel, look: Callable[[], None] = ..., /) -> float:
        """The figure; `look` is called now and then, and what it raises ends the measurement."""


@dataclass(frozen=True)
class Validator:
    """A figure that models are compared by."""

    metric: str
    is_higher_better: bool
    measure: Measure


def _go_on() -> None:
    """Ends no measurement."""


def make_validator(config: RunConfig, dataset: Dataset, replicas: Replicas | None = None) -> Validator | None:
    """NDCG of returning visitors for models that rank, mean squared error for those that predict event weights.

    Returns:
      None where the dataset has no validation split, or nobody in it to rank for: then the last checkpoint is the best.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    if isinstance(config.loss, SquaredErrorConfig):
        weights, rows = config.loss.event_weights, target_rows(dataset, Split.VALIDATION)
        return Validator("mse", False, lambda model, look=_go_on: rating_mse(model, rows, weights, replicas, look))
    cases = build_cases(dataset, Split.VALIDATION)
    none = "no visitor of the validation split returns to a new item"
    return _ranking_validator(cases, "returning visitors", none, replicas)


def make_next_item_validator(dataset: Dataset, replicas: Replicas | None = None) -> Validator | None:
    """NDCG of next items for models of sequences, with a sample of the visitors.

    Returns:
      None where the dataset has no validation split, or nobody in it to rank for: then the last checkpoint is the best.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    cases = build_cases(dataset, Split.VALIDATION, next_items)
    none = "no row of the validation split has a history and an item of the catalogue"
    return _ranking_validator(cases, "next items", none, replicas)


def _ranking_validator(cases: Cases, what: str, without_cases: str, replicas: Replicas | None) -> Validator | None:
    if not len(cases):
        log.warning("%s: the last checkpoint is taken for the best", without_cases)
        return None
    name = f"ndcg@{LIST_LENGTH}"
    sample = cases.sample(MAX_CASES, seed=0)
    # that of models of sequences is another question, and is higher or lower for it
    log.info("validation: %s of %d %s in the validation split", name, len(sample), what)
    return Validator(name, True, _RankingMeasure(sample, name, replicas))


class _RankingMeasure:
    """Ranks for the same visitors again and again; compiled once for a model, whatever it is filled with."""

    def __init__(self, cases: Cases, metric: str, replicas: Replicas | None) -> None:
        self._cases, self._metric, self._replicas = cases, metric, replicas
        self._compiled: tuple[InferenceModel, Evaluator] | None = None

    def __call__(self, model: InferenceModel, look: Callable[[], None] = _go_on) -> float:
        if self._compiled is None or self._compiled[0] is not model:
            self._compiled = model, Evaluator(model, self._cases, [LIST_LENGTH], replicas=self._replicas)
        return self._compiled[1].measure(look).mean(self._metric)
