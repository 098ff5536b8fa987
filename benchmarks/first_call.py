"""Measures the first calls of an export in milliseconds, without and with the warm-up of `cartwheel.load`.

Each figure is the minimum over three processes, because other programs may use the cores.
"""

import argparse
import json
import sys

from benchmarks.harness import Load, report, run_command

MOST_MILLISECONDS = 30.0
PROCESSES = 3
PROGRAM = """
import json, sys, time
import tensorflow as tf
import cartwheel
from cartwheel.recommender import Recommender

begin = time.perf_counter()
model = cartwheel.load(sys.argv[1]) if sys.argv[2] == "warm" else Recommender(tf.saved_model.load(sys.argv[1]))
moments = [begin, time.perf_counter()]
for _ in range(2):
    model.recommend(history=sys.argv[3:], k=10)
    moments.append(time.perf_counter())
print(json.dumps([1000 * (after - before) for before, after in zip(moments, moments[1:])]))
"""


def main() -> int:
    """Measures the first calls of an export; returns 1 if the first one after the warm-up is too slow."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_call", description=__doc__)
    parser.add_argument("export")
    parser.add_argument("history", nargs="*", help="ids of the items in the history of each call")
    given = parser.parse_args()
    load = Load()
    figures = {start: measure(given.export, start, given.history) for start in ("cold", "warm")}
    report("first_call", figures | {"most_ms": MOST_MILLISECONDS}, load=load.share())
    return int(figures["warm"]["first_ms"] > MOST_MILLISECONDS)


def measure(export: str, start: str, history: list[str]) -> dict[str, float]:
    """Times loading an export and its first two calls; returns the minima over several new processes.

    Args:
      export: directory of the export.
      start: `warm` loads the export with `cartwheel.load`; `cold` loads it without a warm-up.
      history: the item ids that the calls pass.

    Returns:
      The milliseconds `load_ms`, `first_ms` and `second_ms`.
    """
    command = [sys.executable, "-c", PROGRAM, export, start, *history]
    processes = [json.loads(run_command(command).stdout) for _ in range(PROCESSES)]
    fastest = (round(min(times), 1) for times in zip(*processes, strict=True))
    return dict(zip(("load_ms", "first_ms", "second_ms"), fastest, strict=True))


if __name__ == "__main__":
    sys.exit(main())
