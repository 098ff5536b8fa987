"""What all tests of a process share: four logical CPU devices, Beam's caches, and an order that ends on time."""

import gc
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import pytest
import tensorflow as tf

TESTS = Path(__file__).parent
NUM_LOGICAL_CPUS = 4
LONGEST_FILES = (
    "integration/test_object_stores.py",
    "integration/test_workers.py",
    "integration/test_training_processes.py",
    "integration/test_devices_of_workers.py",
    "integration/test_beam_workers.py",
    "integration/test_your_data.py",
    "integration/test_readme.py",
    "integration/test_tutorial.py",
    "integration/test_soak.py",
    "trainer/test_train_same_numbers.py",
    "preprocessing/pages/test_report.py",
    "preprocessing/test_pipeline.py",
    "cartwheel/test_api.py",
)
"""Files of minutes. They run first: of two processes, one would otherwise wait for the last file of the other."""


def pytest_configure() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also if `nohup` started the tests: commands leave it ignored then
    # also on machines with fewer GPUs; TensorFlow accepts the number only once per process
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_LOGICAL_CPUS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {file: rank for rank, file in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.relative_to(TESTS).as_posix(), len(ranks)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what all tests import is never garbage, and is a million objects to look through
    if "apache_beam" in sys.modules:
        from tests.beam_caches import cache_reflection

        cache_reflection()
