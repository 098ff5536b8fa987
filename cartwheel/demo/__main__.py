"""Runs all stages from an event log to recommendations, and shows the results on one screen.

The log comes from a synthetic shop, from a real grocer (`--data grocer`), or from your own shop.
Every stage runs a `cartwheel` command in a new process, so the seconds of a stage include starting Python and importing
TensorFlow. Finished stages are skipped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cartwheel.demo.run import GROCER, Inputs, run_demo


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the demo; exits if the arguments contradict each other."""
    given = _build_parser().parse_args(arguments)
    if sum(map(bool, (given.data, given.shop, given.events))) > 1:
        sys.exit("give only one of DATA, SHOP and EVENTS; without them, the demo writes a synthetic shop")
    if not given.events and (given.item_properties or given.category_tree):
        sys.exit("ITEM_PROPERTIES and CATEGORY_TREE need EVENTS; without EVENTS the demo writes a synthetic shop")
    inputs = Inputs(given.data, given.shop, given.events, given.item_properties, given.category_tree)
    _check_inputs(Path(given.output), inputs)
    run_demo(Path(given.output), inputs)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cartwheel.demo", description=__doc__)
    parser.add_argument("--output", default="demo", help="directory for all results (default: demo)")
    parser.add_argument("--data", default="", choices=["", GROCER], help="`grocer`: use the data of a real grocer")
    parser.add_argument("--shop", default="", help="shop.toml of your own shop")
    parser.add_argument("--events", default="", help="event log of your own shop: a path or glob")
    parser.add_argument("--item-properties", default="", help="item properties of your own shop: a path or glob")
    parser.add_argument("--category-tree", default="", help="category tree of your own shop: a path")
    return parser


def _check_inputs(root: Path, inputs: Inputs) -> None:
    """Exits if `root` contains a demo of other inputs; otherwise, records `inputs` there."""
    record = root / "inputs.json"
    if record.exists() and json.loads(record.read_text()) != inputs._asdict():
        sys.exit(
            f"{root}/ contains a demo of other input files: {record.read_text().strip()}. "
            "Run `make clean` first, or choose another directory with DEMO=…"
        )
    root.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(inputs._asdict(), allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
