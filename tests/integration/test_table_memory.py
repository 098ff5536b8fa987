"""Tests that saving, restoring and filling tables takes little memory in addition to the tables."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROWS, DIM = 600_000, 128
VECTORS_MIB = ROWS * DIM * 4 / 2**20
OWNED_MIB = 2 * VECTORS_MIB
"""Size of the vectors and their accumulators, 586 MiB."""

MEASURE = """
import json, re, sys
from pathlib import Path

from trainer.config.optimizers import AdagradConfig
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import start_replicas
from trainer.models.table_variables import fill, make_variable
from trainer.runs import checkpoint
from trainer.runs.checkpoint import TrainState
from trainer.runs.checkpoint_writer import CheckpointWriter

def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def peak_above(action, *arguments):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    action(*arguments)
    return status("VmHWM") - before

def measure(workdir, rows, dim):
    replicas = start_replicas(1, None)
    table = ShardedTable(rows=rows, dim=dim, replicas=replicas, optimizer=row_optimizer(AdagradConfig()))
    state = TrainState({"visitor": table}, [], [])
    writer = CheckpointWriter(workdir, state, replicas, run="r", steps_per_epoch=1)

    def save(step):
        writer.begin(step)
        assert writer.finish()

    def fill_vectors():
        fill(vectors, checkpoint.read_weights(workdir, "last").tables["visitor"].__getitem__)

    measured = {"save": max(peak_above(save, step) for step in (1, 2))}
    measured["restore"] = peak_above(checkpoint.restore, workdir, state, 2)
    vectors = make_variable((rows, dim), "vectors")
    return measured | {"fill": peak_above(fill_vectors), "fill again": peak_above(fill_vectors)}

folder, rows, dim = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
measure(folder + "/small", 100, dim)  # loads code and starts threads
print(json.dumps(measure(folder + "/large", rows, dim)))
"""


def test_saving_restoring_and_filling_tables_takes_a_tenth_more_at_most(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(ROWS), str(DIM)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=1200).stdout
    measured = json.loads(printed)
    limit = 0.1 * OWNED_MIB
    assert measured["save"] < limit
    assert measured["restore"] < limit
    # the first fill takes the memory of the variable; the second one replaces its values
    assert 0.9 * VECTORS_MIB < measured["fill"] < VECTORS_MIB + limit
    assert measured["fill again"] < limit
