"""A training run in a pod that is killed for memory."""

import pytest

from tests.cluster.namespaces import last_line
from tests.e2e.shops import SECONDS, Shop, training

pytestmark = pytest.mark.e2e


def test_a_run_out_of_memory_names_its_limit(shop: Shop) -> None:
    process = shop.start("train", *training("/data", "memory"), "--memory", "150Mi")
    line = ""
    for line in process.stderr or ():
        if "OOMKilled" in line:
            break
    assert shop.namespace.submit("cancel", "train", "--poll", "0.5")[0] == 0
    assert line.endswith("ended: OOMKilled: it needed more than its memory limit of 150Mi; raise --memory\n")
    _, errors = process.communicate(timeout=SECONDS)
    assert last_line(errors) == "train no longer exists: it was cancelled"
