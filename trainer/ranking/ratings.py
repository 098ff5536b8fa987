"""Squared errors of a model that predicts what an event is worth, beside those of constants.

Shapes: N rows.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf

from contract.schema import Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows
from trainer.dataset import Dataset
from trainer.models.interface import InferenceModel

_CHUNK_ROWS = 1 << 16


@dataclass(frozen=True)
class RatingErrors:
    """Mean squared errors over the target rows of a split, and what the model gains over the best constant.

    rows                   N
    mse                    of the model
    mse_of_training_mean   of predicting the mean weight of the training rows for every row
    mse_of_one             of predicting 1, the weight of a view, for every row
    skill                  1 − mse / mse_of_training_mean; 0: no better than the constant; NaN: all weights are equal
    """

    rows: int
    mse: float
    mse_of_training_mean: float
    mse_of_one: float
    skill: float

    def to_json(self) -> dict[str, float | None]:
        """The figures by name; NaN becomes null."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}


def rating_errors(
    model: InferenceModel, dataset: Dataset, split: Split, event_weights: Sequence[float]
) -> RatingErrors:
    """Measures the model's pair scores on every target row of a split.

    Raises:
      ContractError: the dataset has no such split.
      ValueError: a score is NaN or infinite.
    """
    rows = target_rows(dataset, split)
    mse = rating_mse(model, rows, event_weights)
    weights = np.asarray(event_weights)
    actual = weights[rows.event]
    mean = weights[target_rows(dataset, Split.TRAIN).event].mean()
    of_mean = float(np.mean((mean - actual) ** 2))
    skill = 1 - mse / of_mean if of_mean > 0 else np.nan
    return RatingErrors(len(rows), mse, of_mean, float(np.mean((1 - actual) ** 2)), skill)


def target_rows(dataset: Dataset, split: Split) -> TimelineRows:
    """The rows of a split itself, without the context."""
    parts = []
    for shard in dataset.shards(split):
        rows = read_timelines([shard])
        parts.append(rows[rows.is_target == 1])
    return TimelineRows.concatenate(parts)


def rating_mse(model: InferenceModel, rows: TimelineRows, event_weights: Sequence[float]) -> float:
    """Mean squared error of the model's pair scores on rows [N].

    Raises:
      ValueError: a score is NaN or infinite.
    """
    pair = tf.TensorSpec([None], tf.int64)
    score = tf.function(model.pair_scores, input_signature=[pair, pair])
    chunks = [slice(begin, begin + _CHUNK_ROWS) for begin in range(0, len(rows), _CHUNK_ROWS)]
    scores = [score(tf.constant(rows.visitor[chunk]), tf.constant(rows.item[chunk])).numpy() for chunk in chunks]
    mse = float(np.mean((np.concatenate(scores).astype(np.float64) - np.asarray(event_weights)[rows.event]) ** 2))
    if not np.isfinite(mse):
        raise ValueError(
            "predicted weights are not finite: the model has diverged; train it anew with a smaller learning rate"
        )
    return mse
