"""Mutates inputs, damages files and kills commands for some minutes.

A command must not hang or crash, end with a traceback, fail without a clear reason, lose a row, leave unfinished files
or print a secret. If a killed command is run again, it must have the same result as an undisturbed command. The name of
a case is KIND:NUMBER; --case runs one case again. If a command breaks one of these promises, the campaign keeps the
folder of the case and exits with 1.

usage: python -m tests.campaign [--minutes 30] [--seed 0] [--case KIND:NUMBER] [--output DIRECTORY] [--record]
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import report
from tests.campaign.campaign import KINDS, Campaign, log_outcome, plan, run_cases, summarize


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=30, help="minutes until the last case starts (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of cases (default: 0)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--case", type=_parse_case, metavar="KIND:NUMBER", help="run only this case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="concurrent cases (default: one per core)")
    parser.add_argument("--output", type=Path, help="folder of the cases (default: a temporary one)")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/campaign.json")
    return parser


def _parse_case(text: str) -> tuple[str, int]:
    kind, _, number = text.partition(":")
    if kind not in KINDS or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:NUMBER; the kinds are {', '.join(KINDS)}")
    return kind, int(number)


def main() -> int:
    """Runs a campaign or one case, and prints its figures."""
    given = build_parser().parse_args()
    # commands inherit the signals that `nohup` and `&` ignore
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    campaign = Campaign(given.output or Path(tempfile.mkdtemp(prefix="cartwheel-campaign-")))
    cases = [(*given.case, 1)] if given.case else plan(given.kinds, given.seed)
    begin, outcomes = time.monotonic(), []
    for outcome in run_cases(campaign, cases, seconds=60 * given.minutes, jobs=given.jobs):
        log_outcome(outcome)
        outcomes.append(outcome)
    figures = {"minutes": round((time.monotonic() - begin) / 60, 1), **summarize(outcomes)}
    print(json.dumps(outcomes[0].to_json() if given.case else figures, indent=2, ensure_ascii=False))
    if given.record:
        report("campaign", figures, module="tests.campaign", quiet=True)
    if figures["faults"]:
        print(f"the folders of cases with a fault are in {campaign.output}", file=sys.stderr)
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
