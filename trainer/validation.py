"""The figure on the validation split that picks a run's best checkpoint."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from contract.schema import Split
from trainer.config import RunConfig, SquaredErrorConfig
from trainer.dataset import Dataset
from trainer.models.interface import InferenceModel
from trainer.ranking.cases import Cases, build_cases
from trainer.ranking.evaluation import Evaluator
from trainer.ranking.ratings import rating_mse, target_rows

log = logging.getLogger(__name__)

NDCG_K = 20
MAX_VISITORS = 5000
"""Returning visitors that are ranked for after an epoch: enough to tell epochs apart, few enough not to be felt."""


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
    cases = build_cases(dataset, Split.VALIDATION).sample(MAX_VISITORS, seed=0)
    if not len(cases):
        log.warning(
            "no visitor of the validation split returns to a new item: the last checkpoint is taken for the best"
        )
        return None
    return Validator(f"ndcg@{NDCG_K}", True, _RankingMeasure(cases))


class _RankingMeasure:
    """Ranks for the same visitors again and again; compiled once, for the first model given."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases
        self._ranked: tuple[InferenceModel, Evaluator] | None = None

    def __call__(self, model: InferenceModel) -> float:
        if self._ranked is None:
            self._ranked = model, Evaluator(model, self._cases, [NDCG_K])
        own, evaluator = self._ranked
        for variable, given in zip(own.variables, model.variables, strict=True):
            variable.assign(given)
        return evaluator.measure().mean(f"ndcg@{NDCG_K}")
