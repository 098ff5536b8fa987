"""Prepares each test process: four logical CPU devices, Beam's caches, and the order of the tests."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import pytest

TESTS = Path(__file__).parent
NUM_LOGICAL_CPUS = 4
LONGEST_FILES = (
    "integration/test_tutorial.py",
    "integration/test_containers.py",
    "trainer/doctor/test_gpu.py",
    "integration/test_training_processes.py",
    "integration/test_beam_workers.py",
    "integration/test_workers.py",
    "integration/test_object_stores.py",
    "integration/test_store_faults.py",
    "integration/test_devices_of_workers.py",
    "integration/test_your_data.py",
    "integration/test_divided_ranking.py",
    "integration/test_readme.py",
    "trainer/workflows/test_auto.py",
    "integration/test_progress.py",
    "integration/test_soak.py",
    "trainer/test_train_same_numbers.py",
    "preprocessing/test_pipeline.py",
    "preprocessing/pages/test_report.py",
    "cartwheel/test_api.py",
)
"""Test files that take minutes. They run first, the longest ones before the others. Otherwise, one process would still
run such a file when all others are idle."""


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None):
        return  # this is xdist's first process, which runs no tests; its workers do not have the option
    import tensorflow as tf  # takes seconds, and the workers would wait for the first process

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also if `nohup` started the tests: commands leave it ignored then
    # also on machines with fewer GPUs; TensorFlow accepts the number only once per process
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_LOGICAL_CPUS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {file: rank for rank, file in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(TESTS).as_posix(), len(ranks)))


def pytest_collection_finish() -> None:
    gc.freeze()  # the imports of all tests are a million objects that the garbage collector need not examine
    if "apache_beam" in sys.modules:
        from tests.beam_caches import cache_reflection

        cache_reflection()


@pytest.fixture
def restored_signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores after the test what `common.signals.StopSignals` changes."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
