import logging
from dataclasses import replace

import pytest

from common.settings import apply_settings
from trainer.config.batch_scaling import scale_batch, warn_of_small_batch
from trainer.config.presets import PRESETS

NN = apply_settings(PRESETS["nn"], ["optimizer.initial_accumulator=0.0256", "model.dense_learning_rate=0.001"])


def test_the_optimizer_follows_the_batch_of_all_replicas() -> None:
    """16 replicas of 512 rows are 16 times the batch of 512 that the settings are meant for."""
    scaled = scale_batch(apply_settings(NN, ["input.batch_size_per_replica=512"]), 16, training_rows=1_000_000)
    assert (scaled.input.batch_size, scaled.input.batch_size_per_replica) == (8192, None)
    assert scaled.optimizer.learning_rate == NN.optimizer.learning_rate
    assert scaled.optimizer.initial_accumulator == pytest.approx(0.0001)  # 0.0256 / 16²
    assert scaled.model.dense_learning_rate == pytest.approx(0.004)  # 0.001 × √16
    assert scaled.optimizer.warmup_steps == 13  # a tenth of 122.07 steps
    assert replace(scaled, input=NN.input, optimizer=NN.optimizer, model=NN.model) == NN


def test_a_batch_below_eight_times_the_settings_has_no_warmup_and_a_given_warmup_is_kept() -> None:
    four = scale_batch(apply_settings(NN, ["input.batch_size_per_replica=256"]), 8, 1_000_000)
    assert (four.input.batch_size, four.optimizer.warmup_steps) == (2048, 0)
    given = apply_settings(NN, ["input.batch_size_per_replica=512", "optimizer.warmup_steps=7"])
    assert scale_batch(given, 16, 1_000_000).optimizer.warmup_steps == 7


@pytest.mark.parametrize(
    ("preset", "settings"), [("nn", []), ("walk", ["input.batch_size_per_replica=64"]), ("nn", ["input.batch_size=64"])]
)
def test_a_run_without_rows_per_replica_or_without_steps_is_unchanged(preset: str, settings: list[str]) -> None:
    config = apply_settings(PRESETS[preset], settings)
    assert scale_batch(config, 16, 1_000_000) is config


def test_few_rows_per_gpu_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_small_batch(512, 1)
        warn_of_small_batch(512 * 64, 64)
        assert not caplog.records
        warn_of_small_batch(512, 64)
    assert "input.batch_size=512 is 8 rows for each of 64 GPUs" in caplog.text
