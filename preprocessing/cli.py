"""Flags to a frozen config: `python -m preprocessing prepare | report | synthesize | download`; others go to Beam."""

import argparse
import gc
import json
import logging
import os
import shutil
import signal
import textwrap
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from absl import logging as absl_logging

from common.progress import LogHandler
from common.settings import apply_settings, settings_of
from contract.schema import SplitMethod
from preprocessing.config import PrepareConfig, SplitConfig, parse_when

log = logging.getLogger(__name__)

DONE, FAILED, INTERRUPTED, STOPPED = 0, 1, 130, 128 + signal.SIGTERM

EXAMPLES = {
    "prepare": "--events shop/events.csv --output dataset --set items.min_count=5",
    "report": "--data dataset",
    "synthesize": "--visitors 20000 --output shop",
    "download": "--output data/retailrocket",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 1 failed, 2 misused, 130 interrupted, 143 SIGTERM."""
    parser = _build_parser()
    given, others = parser.parse_known_args(arguments)
    if others and given.command != "prepare":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    _start_log(verbose=given.verbose)
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop)
    try:
        result = _prepare(given, others, parser) if given.command == "prepare" else _COMMANDS[given.command](given)
    except KeyboardInterrupt:
        log.error("interrupted; nothing was published")
        return INTERRUPTED
    except Exception as error:
        if not stop.is_asked:
            return _fail(error, verbose=given.verbose)
        # of the exit, Beam made another error
        log.error("stopped by SIGTERM; nothing was published", exc_info=given.verbose)
        return STOPPED
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return DONE


def _fail(error: Exception, *, verbose: bool) -> int:
    """Tells what went wrong, in one line."""
    if isinstance(error, ValueError | OSError | ModuleNotFoundError):
        # Beam adds to a message where in its graph it was raised
        log.error("%s", str(error).partition(" [while running ")[0], exc_info=verbose)
    else:
        log.error("%s: %s (--verbose shows where)", type(error).__name__, _last_line(error), exc_info=verbose)
    return FAILED


def _prepare(given: argparse.Namespace, others: list[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    try:
        config = _prepare_config(given)
    except ValueError as error:
        parser.error(str(error))
    # imported only now: TensorFlow and Beam take seconds, and --help and wrong flags should not wait for them
    from preprocessing.beam.graphs import beam_options
    from preprocessing.pages.report import try_to_write_report
    from preprocessing.pipeline import prepare

    gc.freeze()  # the modules' 1.5 million objects stay: a collection need not visit them
    try:
        options = beam_options(others)
    except ValueError as error:
        parser.error(str(error))
    result = prepare(config, given.output, options, baseline=given.baseline)
    return result | {"report": try_to_write_report(given.output)}


def _report(given: argparse.Namespace) -> dict[str, Any]:
    from preprocessing.pages.report import write_report

    return {"report": write_report(given.data)}


def _synthesize(given: argparse.Namespace) -> dict[str, Any]:
    from preprocessing.synthetic import SynthesisConfig, synthesize

    return synthesize(SynthesisConfig(visitors=given.visitors, seed=given.seed), given.output)


def _download(given: argparse.Namespace) -> dict[str, Any]:
    from preprocessing.download import download

    return download(given.output)


_COMMANDS = {"report": _report, "synthesize": _synthesize, "download": _download}


def _prepare_config(given: argparse.Namespace) -> PrepareConfig:
    split = SplitConfig(
        method=SplitMethod(given.split), validation_from_ms=given.validation_from, test_from_ms=given.test_from
    )
    config = PrepareConfig(
        events=given.events,
        item_properties=given.item_properties,
        category_tree=given.category_tree,
        split=split,
        max_reject_share=given.max_reject_share,
        max_events_per_day=given.max_events_per_day,
    )
    return apply_settings(config, given.set)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing",
        description=__doc__,
        epilog="COMMAND --help tells a command's flags, their defaults and an example. @FILE among the arguments "
        "stands for those in the file, one a line.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=metadata.version("cartwheel"))
    commands = parser.add_subparsers(dest="command", required=True)
    _add_prepare(commands)
    report = _add_command(commands, "report", "draw a dataset's statistics anew, as report.html in it")
    report.add_argument("--data", required=True, metavar="DATASET", help="prepared dataset")
    synthesize = _add_command(
        commands, "synthesize", "write a Retailrocket-like shop: events, properties, category tree"
    )
    synthesize.add_argument("--visitors", type=int, required=True, help="how many visitors the shop has")
    synthesize.add_argument("--seed", type=int, default=0, help="the same seed gives the same shop (default: 0)")
    synthesize.add_argument("--output", required=True, metavar="DIR", help="directory to make")
    download = _add_command(commands, "download", "fetch the real Retailrocket files with your Kaggle account")
    download.add_argument("--output", required=True, metavar="DIR", help="directory to make")
    return parser


def _add_command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  python -m preprocessing {name} {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("--verbose", action="store_true", help="log more, and show where an error came from")
    return command


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    defaults = PrepareConfig(events="")
    prepare = _add_command(commands, "prepare", "make a dataset from CSV files; flags not listed here go to Beam")
    add = prepare.add_argument
    add("--events", required=True, metavar="GLOB", help=".csv or .csv.gz: timestamp (ms), visitorid, event, itemid")
    add("--item-properties", metavar="GLOB", help=".csv or .csv.gz: timestamp (ms), itemid, property, value")
    add("--category-tree", metavar="FILE", help="categoryid, parentid (empty: a root)")
    add("--output", required=True, metavar="DATASET", help="directory to make; it appears whole or not at all")
    add(
        "--split", choices=[str(method) for method in SplitMethod], default="time", help="of the events (default: time)"
    )
    add("--validation-from", type=_when, metavar="WHEN", help="first cut: ISO 8601 (UTC) or ms; default: 0.8 quantile")
    add("--test-from", type=_when, metavar="WHEN", help="second cut; default: the 0.9 quantile of event time")
    add(
        "--baseline", metavar="DATASET", help="an earlier dataset of the shop: warn or fail where this one is unlike it"
    )
    share, daily = defaults.max_reject_share, defaults.max_events_per_day
    add(
        "--max-reject-share",
        type=float,
        default=share,
        metavar="X",
        help=f"of bad rows; above: fail (default: {share})",
    )
    add("--max-events-per-day", type=int, default=daily, metavar="N", help=f"above: a robot (default: {daily})")
    add(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting, as items.min_count=5",
    )
    settings = "settings and their defaults: " + ", ".join(_other_settings(defaults))
    width = shutil.get_terminal_size().columns - 2  # as argparse has it for all but a text that is laid out already
    prepare.epilog = f"{prepare.epilog}\n\n{textwrap.fill(settings, width, break_on_hyphens=False)}"


def _other_settings(defaults: PrepareConfig) -> list[str]:
    """Settings that have no flag of their own, as KEY=VALUE."""
    with_flag = {"events", "item_properties", "category_tree", "max_reject_share", "max_events_per_day"}
    with_flag |= {"split.method", "split.validation_from_ms", "split.test_from_ms"}
    others = {key: value for key, value in settings_of(defaults).items() if key not in with_flag}
    return [f"{key}={str(value).lower()}" for key, value in others.items()]


def _when(text: str) -> int:
    try:
        return parse_when(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _start_log(*, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        handlers=[LogHandler()],
    )
    if verbose:
        return
    # before TensorFlow is imported: it reads the variable once; its notices on CPU features say nothing to a user
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("tensorflow", "apache_beam"):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # what Beam logs as an error is raised as well, and told once
    absl_logging.set_verbosity(absl_logging.ERROR)


class _Stop:
    """Ends the program at SIGTERM by way of the cleaning up that an exception causes."""

    def __init__(self) -> None:
        self.is_asked = False

    def __call__(self, *_: object) -> NoReturn:
        self.is_asked = True
        raise SystemExit(STOPPED)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[-1]
