"""W workers of L logical CPUs each train like one process with W × L replicas."""

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.integration.processes import (
    END_SECONDS,
    PRESETS,
    assert_close,
    assert_same,
    clusters,
    environment,
    finish,
    slow_from,
    start_workers,
    train_alone,
    train_arguments,
    wait_for_step,
)
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.warm_python import start_python

pytestmark = [pytest.mark.integration, pytest.mark.same_numbers, pytest.mark.slow]

SETTINGS = (
    "input.batch_size=64",
    "model.dim=8",
    "steps_per_execution=2",
    "epochs=4",
    "checkpoint_every_steps=4",
    "validate_every_epochs=4",
    "patience=none",
    "blend=false",
)
EVERY_PRESET = """
import json, sys
from functools import cache
import trainer.train
from trainer import cli

# TensorFlow joins a cluster once per process
trainer.train.start_replicas = cache(trainer.train.start_replicas)
sys.exit(max(cli.main(command) for command in json.loads(sys.argv[1])))
"""
"""A program that trains several runs in sequence, so that TensorFlow is started only once."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("dataset"))
    build_dataset(root, **checkerboard(), num_shards=1)
    return root


@pytest.fixture(scope="module")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """Returns a function that trains each preset on W workers with L devices, and returns the directory of the runs.

    If W is 1, the function trains in this process.
    """

    @cache
    def train(workers: int, devices: int) -> Path:
        root = tmp_path_factory.mktemp(f"{workers}x{devices}")
        settings = (*SETTINGS, f"devices={devices}")
        if workers == 1:
            for preset in PRESETS:
                train_alone(preset, dataset, root / preset, *settings)
            return root
        commands = json.dumps([train_arguments(preset, dataset, root / preset, settings) for preset in PRESETS])
        finish(
            [
                start_python(
                    ["-c", EVERY_PRESET, commands],
                    env=environment(cluster),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for cluster in clusters(workers)
            ]
        )
        return root

    return train


@pytest.mark.parametrize(("workers", "devices"), [(2, 2), (4, 1)])
def test_workers_of_several_devices_train_like_one_process_with_as_many_replicas(
    workers: int, devices: int, trained: Callable[[int, int], Path]
) -> None:
    for preset in PRESETS:
        assert_close(trained(1, workers * devices) / preset, trained(workers, devices) / preset)


def test_the_same_number_of_replicas_gives_the_same_bits_on_two_and_on_four_workers(
    trained: Callable[[int, int], Path],
) -> None:
    for preset in PRESETS:
        assert_same(trained(2, 2) / preset, trained(4, 1) / preset)


def test_two_workers_of_two_devices_survive_kills_and_resume_as_four_workers(
    dataset: str, trained: Callable[[int, int], Path], tmp_path: Path
) -> None:
    settings = (*SETTINGS, "devices=2")
    for lost, step in ((1, 4), (0, 12)):
        workers = start_workers(2, "nn", dataset, tmp_path, *settings, program=slow_from(step + 4))
        wait_for_step(workers[0], tmp_path, step)
        workers[lost].kill()
        _, log = workers[1 - lost].communicate(timeout=END_SECONDS)
        assert (workers[1 - lost].returncode, "start all workers again" in log) == (75, True), log
        workers[lost].communicate(timeout=END_SECONDS)
    finish(start_workers(4, "nn", dataset, tmp_path, *settings, "devices=1"))
    assert_same(trained(2, 2) / "nn", tmp_path)
