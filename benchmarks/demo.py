"""Records the seconds of the demo's stages and the metrics of all systems, for the tables of the documentation."""

import argparse
import sys
from pathlib import Path

from benchmarks.harness import report
from cartwheel.demo.run import VISITORS, Inputs, run_demo
from cartwheel.demo.tables import merge_systems


def main() -> None:
    """Runs the demo in a new directory and writes `results/demo.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument(
        "--output", required=True, help="new directory for the results; stages with existing results would be skipped"
    )
    root = Path(parser.parse_args().output)
    if root.exists():
        sys.exit(f"{root}/ exists, so some stages might not run; give a new directory")
    outcome = run_demo(root, Inputs())
    figures = {"visitors": VISITORS, "seconds": outcome.seconds, "table": merge_systems(outcome.evaluations)}
    report("demo", figures, quiet=True)


if __name__ == "__main__":
    main()
