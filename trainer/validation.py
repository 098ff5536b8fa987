"""The figure on the validation split that picks a run's best checkpoint."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from contract.schema import Split
from trainer.config import RunConfig, SquaredErrorConfig
from trainer.dataset import Dataset
from trainer.models.interface import InferenceModel
from trainer.ranking.cases import Cases, build_cases, next_items
from trainer.ranking.evaluation import Evaluator
from trainer.ranking.ratings import rating_mse, target_rows

log = logging.getLogger(__name__)

LIST_LENGTH = 20
MAX_CASES = 5000
"""Cases that are ranked for after an epoch: enough to tell epochs apart, few enough not to be felt."""


@dataclass(frozen=True)
class Validator:
    """A figure of a model; `measure` gives it for the model's present variables."""

    metric: str
    is_higher_better: bool
    measure: Callable[[InferenceModel], float]


def make_validator(config: RunConfig, dataset: Dataset) -> Validator | None:
    """NDCG of returning visitors for models that rank, mean squared error for those that predict event weights.

    Returns:
      None where the dataset has no validation split, or nobody in it to rank for: then the last checkpoint is the best.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    if isinstance(config.loss, SquaredErrorConfig):
        weights, rows = config.loss.event_weights, target_rows(dataset, Split.VALIDATION)
        return Validator("mse", False, lambda model: rating_mse(model, rows, weights))
    cases = build_cases(dataset, Split.VALIDATION)
    return _ranking_validator(cases, "ndcg", "no visitor of the validation split returns to a new item")


def make_next_item_validator(dataset: Dataset, metric: Literal["mrr", "ndcg"] = "mrr") -> Validator | None:
    """MRR or NDCG of next items for models of sequences, with a sample of the visitors.

    Returns:
      None where the dataset has no validation split, or nobody in it to rank for: then the last checkpoint is the best.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    cases = build_cases(dataset, Split.VALIDATION, next_items)
    return _ranking_validator(
        cases, metric, "no row of the validation split has a history and an item of the catalogue"
    )


def _ranking_validator(cases: Cases, metric: Literal["mrr", "ndcg"], without_cases: str) -> Validator | None:
    if not len(cases):
        log.warning("%s: the last checkpoint is taken for the best", without_cases)
        return None
    name = f"{metric}@{LIST_LENGTH}"
    return Validator(name, True, _RankingMeasure(cases.sample(MAX_CASES, seed=0), name))


class _RankingMeasure:
    """Ranks for the same visitors again and again; compiled once, for the first model given."""

    def __init__(self, cases: Cases, metric: str) -> None:
        self._cases, self._metric = cases, metric
        self._ranked: tuple[InferenceModel, Evaluator] | None = None

    def __call__(self, model: InferenceModel) -> float:
        if self._ranked is None:
            self._ranked = model, Evaluator(model, self._cases, [LIST_LENGTH])
        own, evaluator = self._ranked
        for variable, given in zip(own.variables, model.variables, strict=True):
            variable.assign(given)
        return evaluator.measure().mean(self._metric)
