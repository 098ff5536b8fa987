"""The `cartwheel` command: one verb per job, from an event log to recommendations."""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import NamedTuple

from common.cli import Parser

PROGRAM = "cartwheel"


class Verb(NamedTuple):
    """A verb of the `cartwheel` command."""

    module: str
    """Module with `main` and `build_parser` of the command line."""
    summary: str
    """Short help text of the verb, half a line."""


VERBS: Mapping[str, Verb] = {
    "synthesize": Verb("preprocessing.cli", "write a synthetic shop to experiment with"),
    "download": Verb("preprocessing.cli", "write the files of a real shop: Retailrocket (Kaggle) or a grocer"),
    "inspect": Verb("preprocessing.cli", "describe an event log and propose how to read it"),
    "prepare": Verb("preprocessing.cli", "build a dataset from an event log"),
    "train": Verb("trainer.cli", "train a model, refit it on all events, or resume a stopped run"),
    "tune": Verb("trainer.cli", "search for the settings with the best validation metric"),
    "evaluate": Verb("trainer.cli", "rank the whole catalogue and compare with baselines"),
    "export": Verb("trainer.cli", "publish a SavedModel that takes raw ids"),
    "refresh": Verb("cartwheel.refresh_cli", "change which items an export may recommend"),
    "recommend": Verb("trainer.cli", "write recommendations for all visitors"),
    "report": Verb("trainer.cli", "redraw the report of a run (--workdir) or of a dataset (--data)"),
    "demo": Verb("trainer.cli", "serve a page that compares exports side by side"),
    "doctor": Verb("trainer.cli", "check this machine and suggest fixes"),
    "submit": Verb("k8s.cli", "run the jobs on a Kubernetes cluster"),
}
"""All verbs, in order of use."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; returns 0 done, 1 failed, 2 wrong arguments, 75 stopped and can be resumed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in VERBS:
        build_parser().parse_args(words)  # prints the help, the version or an error, and exits
        raise AssertionError("unreachable: parse_args exits")
    verb, flags = words[0], words[1:]
    module = importlib.import_module(_module(verb, flags))
    if verb == "submit":
        return module.main(flags, program=f"{PROGRAM} submit")
    return module.main(words, program=PROGRAM)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the first argument, the verb, such as `train`. The verb's module parses its flags."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items())
    parser = Parser(
        prog=PROGRAM,
        usage="cartwheel VERB [flags]",
        description="Product recommendations from an online shop's event log.",
        epilog=f"verbs, in order of use:\n{verbs}\n\n"
        "`cartwheel VERB --help` shows the flags of a verb, their defaults and an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=metadata.version("cartwheel"))
    parser.add_argument("verb", choices=list(VERBS), metavar="VERB", help=argparse.SUPPRESS)
    return parser


def _module(verb: str, flags: Sequence[str]) -> str:
    """Returns the module that implements a verb. `report` has one module for runs and one for datasets."""
    if verb == "report" and not any(flag.partition("=")[0] in ("--workdir", "--help", "-h") for flag in flags):
        return "preprocessing.cli"
    return VERBS[verb].module
