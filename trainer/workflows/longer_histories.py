"""Chooses a longer history for a further trial of `nn`, if the shop's visitors have one.

Of the models of `--preset auto`, only `nn` reads much less of a history than it may have: its latest ten events. The
walk reads 500, `session_knn` 100, `ease` 1,000, least squares 64, and `mf` reads the whole history.
"""

from dataclasses import replace

import numpy as np

from contract.schema import Split
from trainer.config.models import TowersConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.evaluation.cases import build_cases, next_items

NAME = "nn_long"
"""Name of the trial with the longer history."""
_SHARE = 0.25  # this share of the validation cases must have at least the longer history
_LEAST_FACTOR, _LARGEST_FACTOR = 2, 4  # the longer history as a multiple of the usual one
LEAST_SLOWDOWN = (1 + _LEAST_FACTOR) / 2
"""Minimum of `slowdown`, for the shortest of the longer histories."""


def longer_history(config: RunConfig, dataset: Dataset) -> RunConfig | None:
    """Returns `config` with a longer history; None if too few validation cases have one.

    The history is the longest that a quarter of the next items of the validation split have, but at most four times the
    usual length. If it is less than twice the usual length, the result is None.

    Args:
      config: settings of two towers.
      dataset: the dataset.
    """
    model = config.model
    if not isinstance(model, TowersConfig) or Split.VALIDATION not in dataset.manifest.splits:
        return None
    lengths = np.sort(build_cases(dataset, Split.VALIDATION, next_items, config.evaluate.kinds).history.lengths)
    if not len(lengths):
        return None
    common = int(lengths[-int(np.ceil(_SHARE * len(lengths)))])
    longer = min(common, _LARGEST_FACTOR * model.history_length)
    if longer < _LEAST_FACTOR * model.history_length:
        return None
    return replace(config, name=NAME, model=replace(model, history_length=longer))


def slowdown(usual: RunConfig, longer: RunConfig) -> float:
    """Returns about how many times as long training takes with the history of `longer` as with that of `usual`.

    Three times the history took twice the time (docs/experiments.md), as only a part of a step depends on its length.
    """
    return (1 + longer.history_length / usual.history_length) / 2
