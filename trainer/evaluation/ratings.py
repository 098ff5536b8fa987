"""Squared errors of a model that predicts event weights, compared with constant predictions.

Shapes: N rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf

from contract.schema import Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.models.interface import ServedModel

_CHUNK_ROWS = 1 << 16


@dataclass(frozen=True)
class RatingErrors:
    """Mean squared errors in predicting the weights of a split's target rows."""

    rows: int
    """Number of target rows, N."""
    mse: float
    """Error of the model."""
    mse_of_training_mean: float
    """Error of a constant prediction: the mean weight of the training rows."""
    mse_of_one: float
    """Error of a constant prediction: 1, the weight of a view."""
    skill: float
    """1 − mse / mse_of_training_mean. If it is 0 or less, the model is no better than the constant. NaN: the constant
    has no error."""

    def to_json(self) -> dict[str, float | None]:
        """Returns the fields by name; NaN becomes null."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}


def rating_errors(
    model: ServedModel,
    dataset: Dataset,
    split: Split,
    event_weights: Sequence[float],
    replicas: Replicas | None = None,
) -> RatingErrors:
    """Measures how well a model's scores of (visitor, item) pairs predict the weights of events.

    Args:
      event_weights: see `rating_mse`.
      replicas: all replicas; each worker scores a part of the rows. None: this process handles all rows.

    Raises:
      ContractError: the dataset has no such split.
      ValueError: a score is NaN or infinite.
    """
    rows = target_rows(dataset, split)
    mse = rating_mse(model, rows, event_weights, replicas)
    actual = _weights(rows, event_weights)
    mean = _weights(target_rows(dataset, Split.TRAIN), event_weights).mean()
    of_mean = float(np.mean((mean - actual) ** 2))
    skill = 1 - mse / of_mean if of_mean > 0 else np.nan
    return RatingErrors(len(rows), mse, of_mean, float(np.mean((1 - actual) ** 2)), skill)


def target_rows(dataset: Dataset, split: Split) -> TimelineRows:
    """Reads the target rows of a split, without the earlier rows that only serve as history."""
    parts = []
    for shard in dataset.shards(split):
        rows = read_timelines([shard])
        parts.append(rows[rows.is_target == 1])
    return TimelineRows.concatenate(parts)


def rating_mse(
    model: ServedModel,
    rows: TimelineRows,
    event_weights: Sequence[float],
    replicas: Replicas | None = None,
    on_chunk: Callable[[], None] = lambda: None,
) -> float:
    """Returns the mean squared error between the weights of rows and a model's scores of their (visitor, item) pairs.

    Args:
      event_weights: a factor for each event kind; it multiplies the weights of rows.
      replicas: all replicas; each worker scores a part of the rows. None: this process handles all rows.
      on_chunk: called before each chunk; an exception from it ends the measurement.

    Raises:
      ValueError: a score is NaN or infinite.
    """
    pair = tf.TensorSpec([None], tf.int64)
    score = tf.function(model.pair_scores, input_signature=[pair, pair], autograph=False)
    starts, actual = range(0, len(rows), _CHUNK_ROWS), _weights(rows, event_weights)
    worker, workers = (replicas.worker, replicas.workers) if replicas is not None else (0, 1)
    sums = np.zeros(len(starts))
    for number in range(worker, len(starts), workers):
        on_chunk()
        chunk = slice(starts[number], starts[number] + _CHUNK_ROWS)
        scores = score(tf.constant(rows.visitor[chunk]), tf.constant(rows.item[chunk])).numpy()
        sums[number] = np.sum((scores.astype(np.float64) - actual[chunk]) ** 2)
    if replicas is not None:
        sums = replicas.sum_over_workers(sums)
    mse = float(sums.sum() / len(rows))
    if not np.isfinite(mse):
        raise ValueError(
            "predicted event weights are not finite: the model has diverged; lower optimizer.learning_rate and train "
            "into another --workdir"
        )
    return mse


def _weights(rows: TimelineRows, event_weights: Sequence[float]) -> np.ndarray:
    """[N] float64: the value to predict for each row: the row's weight × the weight of its event kind."""
    return np.asarray(event_weights)[rows.event] * rows.weight
