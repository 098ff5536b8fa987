"""Tests the limits of gradient training that are checked before the model is built."""

import pytest

from tests.trainer.tiny_runs import make_config
from trainer.training.sgd import _check_number_of_scores


def test_a_batch_with_too_many_scores_names_the_settings() -> None:
    # 65,536 rows × (65,536 in-batch + 1,024 sampled candidates) = 4,362,076,160 ≥ 2³¹; a half of the rows is still more
    large = ("input.batch_size=65536", "loss.max_in_batch_negatives=65536", "loss.num_negatives=1024")
    config = make_config("mf", *large)
    for replicas in (1, 2):
        with pytest.raises(ValueError, match=r"input.batch_size=65536 with 66,560 candidates gives"):
            _check_number_of_scores(config, replicas)
    _check_number_of_scores(config, 4)  # 1,090,519,040
    _check_number_of_scores(make_config("mf", large[0]), 1)  # 8,192 in-batch candidates
