"""Ranking needs the memory of one chunk of scores, for any number of visitors."""

import re
import subprocess
import sys

import pytest

from tests.trainer.dataset_builder import build_dataset

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VISITORS, ITEMS = 3_000, 150_000
"""Sizes that give 1.7 GiB of scores."""

BOUND_MIB = 400
"""Maximum memory that ranking may take.

A chunk has 32 MiB of scores, which are in memory three times: plain, with seen items hidden, and in top-k. Measured:
130 to 150 MiB for evaluation, 50 for recommendation; 1,130 with chunks of 256 MiB, 1,300 with all scores at once.
"""

# small jobs first, so that code and threads are loaded before the peak is measured
PROGRAM = """
import re
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
from tests.trainer.ranking.fakes import DotModel, cases_of
from trainer.data.dataset import open_dataset
from trainer.evaluation.evaluator import evaluate_scorer
from trainer.recommend import Request, write_recommendations

class Model(DotModel):
    def piece_scores(self, queries):
        visitors = tf.gather(self.visitor_vectors, queries.visitor)
        return lambda begin, size: tf.matmul(visitors, self.vectors[begin : begin + size], transpose_b=True)

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

def model(num_visitors, num_items):
    generator = np.random.default_rng(0)
    return Model(*(generator.normal(size=(rows, 4)) for rows in (num_visitors, num_items)), np.zeros(num_items))

def evaluate(dataset, output):
    cases = cases_of([[0, 1]] * dataset.num_visitors, [[2]] * dataset.num_visitors, dataset.num_items)
    evaluate_scorer(model(dataset.num_visitors, dataset.num_items), cases, with_secondary=True)

def recommend(dataset, output):
    visitors = [f"v{visitor}" for visitor in range(dataset.num_visitors)]
    request = Request(k=20, visitor_ids=visitors, formats=("parquet",))
    scorer = model(dataset.num_visitors, dataset.num_items)
    write_recommendations(scorer, dataset, output, request, model_checksum="")

job, small, large, output = sys.argv[1:]
run = {"evaluate": evaluate, "recommend": recommend}[job]
run(open_dataset(small), output + "/small")
before = peak()
run(open_dataset(large), output + "/large")
print("MiB:", peak() - before)
"""


@pytest.mark.parametrize("job", ["evaluate", "recommend"])
def test_ranking_needs_the_memory_of_one_chunk_of_scores(job, tmp_path):
    for name, num_visitors, num_items in (("small", 20, 5_000), ("large", VISITORS, ITEMS)):
        visitors, items = [f"v{visitor}" for visitor in range(num_visitors)], [f"i{item}" for item in range(num_items)]
        build_dataset(str(tmp_path / name), train=[("v0", "i0")], visitors=visitors, items=items)
    folders = [str(tmp_path / name) for name in ("small", "large", "output")]
    command = [sys.executable, "-c", PROGRAM, job, *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(r"MiB: ([\d.]+)", done.stdout)
    assert found
    assert 0 < float(found[1]) < BOUND_MIB
