"""The preprocessing commands: inspect, prepare, report, synthesize, download. Unknown flags of `prepare` go to Beam."""

import argparse
import dataclasses
import gc
import logging
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from common import cli, logs, storage
from common.cli import DONE
from common.settings import apply_settings, settings_of
from common.signals import StopSignals, describe_stop
from common.uris import refuse_credentials_in_arguments
from contract.schema import SplitMethod
from preprocessing.config import EventColumns, FormatConfig, PrepareConfig, parse_when
from preprocessing.shop import format_shop, make_config, relative_to

log = logging.getLogger(__name__)

_GROUPS = ("events_format", "time", "kinds", "item_table", "visitors", "categories", "property_values", "expectations")
"""Groups of settings. The help of `prepare` does not list their settings one by one, so that it fits on a screen."""


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m preprocessing") -> int:
    """Runs a command and returns its exit status.

    Args:
      arguments: command line arguments; None: those of the process.
      program: first words of the command line, for usage and examples.

    Returns:
      0 done; 1 failed; 2 wrong arguments; 73 another process owns the output; 75 another process took over the output;
      130 Ctrl-C; 143 SIGTERM or SIGHUP.
    """
    parser = build_parser(program)
    given, others = parser.parse_known_args(arguments)
    if others and given.command != "prepare":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    with cli.usage_errors(parser):
        refuse_credentials_in_arguments(given, others)
    logs.start_log(verbose=given.verbose)
    stop = StopSignals()
    try:
        with storage.hold_temporary_files(given.command), storage.explain_full_disk(given.__dict__.get("output")):
            result = _prepare(given, others, parser) if given.command == "prepare" else _COMMANDS[given.command](given)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if stop.caused(error):
            log.error("%s", describe_stop(stop, given.__dict__.get("output"), resumes=False), exc_info=given.verbose)
            return stop.status
        if isinstance(error, Exception):
            return _fail(error, verbose=given.verbose)
        raise
    cli.print_result(result, _SUMMARIES[given.command], as_json=given.json)
    return DONE


def _fail(error: Exception, *, verbose: bool) -> int:
    """Logs an error, with the traceback if `verbose`; returns the exit status."""
    is_expected = isinstance(error, ValueError | OSError | ModuleNotFoundError)
    # Beam adds the step of its graph to an error, and replaces errors that it cannot copy by RuntimeErrors
    text = re.sub(r" \[while running '[^']*'\]", "", str(error) if is_expected else _last_line(error))
    if is_expected or re.match(r"[\w.]+(Error|Exception): ", text):
        log.error("%s", text, exc_info=verbose)
    else:
        log.error("%s: %s (--verbose shows the traceback)", type(error).__name__, text, exc_info=verbose)
    return cli.failure_status(error)


def _prepare(given: argparse.Namespace, others: list[str], parser: argparse.ArgumentParser) -> dict[str, Any]:
    with cli.usage_errors(parser):
        config = _prepare_config(given)
    logs.import_tensorflow(verbose=given.verbose)
    if not given.verbose:
        # Beam raises every error that it logs; without this, users would read it twice
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    # imported only now: Beam takes seconds, and --help and wrong flags should answer at once
    from preprocessing.beam.job import parse_beam_options
    from preprocessing.pages.report import try_to_write_report
    from preprocessing.pipeline import prepare

    gc.freeze()  # garbage collections need not visit the 1.5 million objects of the imports
    with cli.usage_errors(parser):
        options = parse_beam_options(others)
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
    from preprocessing.grocer import write_grocer

    return write_grocer(given.output) if given.shop == "grocer" else download(given.output)


def _inspect(given: argparse.Namespace) -> dict[str, Any]:
    from preprocessing import inspection

    columns = tuple(given.columns.split(",")) if given.columns else ()
    config = FormatConfig(separator=given.separator, encoding=given.encoding, columns=columns)
    found = inspection.inspect(given.files, config)
    if given.write:
        storage.refuse_existing(given.write)
        storage.write_bytes(given.write, format_shop(relative_to(given.write, found.config)).encode())
    return inspection.as_json(found) | {"text": inspection.describe(found), "written": given.write}


_COMMANDS = {"inspect": _inspect, "report": _report, "synthesize": _synthesize, "download": _download}


def _summarize_dataset(result: dict[str, Any]) -> str:
    sizes = result["vocabularies"]
    splits = ", ".join(f"{name} {split['rows']:,}" for name, split in result["splits"].items())
    rejected, filtered = (sum(result[name].values()) for name in ("rejected", "filtered"))
    excluded = [f"{rejected:,} rejected", f"{filtered:,} filtered", f"{result['duplicates']:,} duplicates"]
    excluded.append(f"{result['robot_events']:,} events of robots")
    return "\n".join(
        [
            f"Prepared {result['dataset']}: {result['events']:,} events",
            f"Vocabularies: {sizes['visitors']:,} visitors, {sizes['items']:,} items",
            f"Events per split: {splits}",
            f"Excluded from {result['rows']:,} rows: {', '.join(excluded)}",
            *([f"Report: {result['report']}"] if result["report"] else []),
        ]
    )


def _summarize_shop(result: dict[str, Any]) -> str:
    events = sum(result["event_rows"].values())
    return (
        f"Wrote a synthetic shop of {result['visitors']:,} visitors, {events:,} events and "
        f"{result['items_with_properties']:,} items to {result['output']}"
    )


def _summarize_inspection(result: dict[str, Any]) -> str:
    path = result["written"] or "shop.toml"
    first = f"Wrote {path}." if result["written"] else f"Write the proposal to a file: --write {path}."
    return f"{result['text']}\n\n{first} Then prepare the dataset: cartwheel prepare --shop {path} --output dataset"


_SUMMARIES = {
    "inspect": _summarize_inspection,
    "prepare": _summarize_dataset,
    "report": lambda result: f"Report: {result['report']}",
    "synthesize": _summarize_shop,
    "download": lambda result: "\n".join(f"Wrote {path}" for path in result["files"].values()),
}


def _prepare_config(given: argparse.Namespace) -> PrepareConfig:
    flags = {
        "events": given.events,
        "item_properties": given.item_properties,
        "category_tree": given.category_tree,
        "max_reject_share": given.max_reject_share,
        "max_events_per_day": given.max_events_per_day,
        "where": given.where,
        "split": {
            "method": given.split,
            "validation_from_ms": given.validation_from,
            "test_from_ms": given.test_from,
        },
        "columns": dict(map(_parse_column, given.map)),
        "kinds": {"names": given.kinds},
    }
    _check_events(given)
    return apply_settings(make_config(given.shop, flags), given.set)


def _check_events(given: argparse.Namespace) -> None:
    """Raises ValueError if a flag and `--set` give the same input, or `--events` is a comma-separated list."""
    advice = "to read several files, give one glob, such as 'logs/*.csv', or a directory with all files"
    for name in ("events", "item_properties", "category_tree"):
        setting, value = f"{name}=", getattr(given, name)
        if value is not None and any(text.startswith(setting) for text in given.set):
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"files are given by both {flag} and --set {setting}…; remove one of them; {advice}")
    events = [given.events] + [text.partition("=")[2] for text in given.set if text.startswith("events=")]
    for files in filter(None, events):
        if "," in files and "://" not in files and not storage.exists(files) and not storage.find_files(files):
            raise ValueError(f"--events {files} matches no file: a list with commas is not supported; {advice}")


class _Once(argparse.Action):
    """Rejects a flag that is given twice; argparse would keep the last value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(
                f"{option_string} is given twice; to read several files, give one glob, such as 'logs/*.csv', or a "
                "directory with all files"
            )
        setattr(namespace, self.dest, values)


def _parse_column(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    known = [field.name for field in dataclasses.fields(EventColumns)]
    if not equals or name not in known:
        raise ValueError(f"--map must have the form NAME=COLUMN with one of the names {', '.join(known)}; got `{text}`")
    return name, path


def build_parser(program: str = "python -m preprocessing") -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    parser, commands = cli.make_parser(program, str(__doc__))
    _add_inspect(commands)
    _add_prepare(commands)
    report = cli.add_command(
        commands, "report", "redraw report.html of a dataset from its statistics", "--data dataset"
    )
    report.add_argument("--data", required=True, metavar="DATASET", help="prepared dataset")
    synthesize = cli.add_command(
        commands,
        "synthesize",
        "write a synthetic shop: events, item properties, category tree",
        "--visitors 20000 --output shop",
    )
    synthesize.add_argument("--visitors", type=int, required=True, help="number of visitors")
    synthesize.add_argument(
        "--seed", type=int, default=0, help="seed of the shop; the same seed gives the same shop (default: 0)"
    )
    synthesize.add_argument("--output", required=True, metavar="DIR", help="new directory")
    download = cli.add_command(
        commands,
        "download",
        "write the files of a real shop: Retailrocket from Kaggle, or a grocer from an installed package",
        "grocer --output shop",
    )
    download.add_argument(
        "shop",
        nargs="?",
        default="retailrocket",
        choices=("retailrocket", "grocer"),
        help="retailrocket: views, carts and purchases from Kaggle, needs an account there; grocer: purchases from a "
        "package that `make grocer` installs (default: retailrocket)",
    )
    download.add_argument("--output", required=True, metavar="DIR", help="new directory")
    for command in commands.choices.values():
        cli.add_output_flags(command)
    return parser


def _add_inspect(commands: cli.Commands) -> None:
    inspect = cli.add_command(
        commands,
        "inspect",
        "describe the columns of an event log and propose a shop.toml",
        "'events*.parquet' --write shop.toml",
    )
    add = inspect.add_argument
    add("files", metavar="FILES", help="event log: a quoted glob of CSV, Parquet or JSON Lines files, or a directory")
    add("--write", metavar="FILE", help="write the proposed shop.toml to this new file")
    add("--separator", metavar="CHARACTER", help="separator of CSV fields (default: detected from the first line)")
    add(
        "--encoding",
        metavar="NAME",
        help="encoding of text files, such as cp1252 (default: UTF-8, or UTF-16 with a byte order mark)",
    )
    add("--columns", metavar="A,B,…", help="names of the columns of CSV files without a header line")


def _add_prepare(commands: cli.Commands) -> None:
    defaults = PrepareConfig(events="")
    prepare = cli.add_command(
        commands,
        "prepare",
        "build a dataset from an event log; flags not listed here go to Beam",
        "--events shop/events.csv --output dataset --set items.min_count=5",
    )
    add = prepare.add_argument
    _add_inputs(add)
    add("--output", required=True, metavar="DATASET", help="new directory; published whole or not at all")
    methods = [str(method) for method in SplitMethod]
    add("--split", choices=methods, help="how events are split (default: time)")
    add(
        "--validation-from",
        type=_when,
        metavar="WHEN",
        help="validation start: ISO 8601 (UTC) or ms since 1970 (default: 0.8 quantile)",
    )
    add("--test-from", type=_when, metavar="WHEN", help="start of test (default: the 0.9 quantile of the event times)")
    add(
        "--baseline",
        metavar="DATASET",
        help="earlier dataset of the shop; warn or fail if the new one differs too much",
    )
    share, daily = defaults.max_reject_share, defaults.max_events_per_day
    add(
        "--max-reject-share",
        type=float,
        metavar="X",
        help=f"share of invalid rows above which the job fails (default: {share})",
    )
    add(
        "--max-events-per-day",
        type=int,
        metavar="N",
        help=f"visitors with more events on one day are robots (default: {daily})",
    )
    cli.add_settings_flag(prepare, "items.min_count=5")
    groups = ", ".join(f"{group}.*" for group in _GROUPS)
    settings = (
        f"settings and their defaults: {', '.join(_other_settings(defaults))}; docs/settings.md also has {groups}"
    )
    width = shutil.get_terminal_size().columns - 2  # argparse wraps to this width, but not in a raw epilog
    prepare.epilog = f"{prepare.epilog}\n\n{textwrap.fill(settings, width, break_on_hyphens=False)}"


def _add_inputs(add: Callable[..., argparse.Action]) -> None:
    add("--shop", metavar="FILE", help="shop.toml with files, columns and settings (see inspect); flags override it")
    add(
        "--events",
        action=_Once,
        metavar="GLOB",
        help="event log: CSV, Parquet or JSON Lines files, or a directory of them",
    )
    add(
        "--map",
        nargs="+",
        default=[],
        metavar="NAME=COLUMN",
        help="columns: visitor=, item=, time=, kind=, transaction=, weight=; a constant is quoted: kind=\"'view'\"",
    )
    add(
        "--kinds",
        type=lambda text: text.split(","),
        metavar="A,B,…",
        help="event kinds in funnel order (default: view,addtocart,transaction)",
    )
    add(
        "--where",
        nargs="+",
        metavar="CONDITION",
        help="keep only events that meet all these conditions, such as 'Quantity > 0'",
    )
    add(
        "--item-properties",
        action=_Once,
        metavar="GLOB",
        help="files with the columns timestamp (ms), itemid, property, value",
    )
    add(
        "--category-tree",
        action=_Once,
        metavar="GLOB",
        help="files with the columns categoryid, parentid (empty: a root)",
    )


def _other_settings(defaults: PrepareConfig) -> list[str]:
    """Returns KEY=VALUE, with the default as value, for each setting that has no flag and is not in `_GROUPS`."""
    with_flag = {"events", "item_properties", "category_tree", "max_reject_share", "max_events_per_day", "where"}
    with_flag |= {f"columns.{field.name}" for field in dataclasses.fields(EventColumns)}
    with_flag |= {"split.method", "split.validation_from_ms", "split.test_from_ms"}
    settings = {key: value for key, value in settings_of(defaults).items() if key.partition(".")[0] not in _GROUPS}
    others = {key: value for key, value in settings.items() if key not in with_flag}
    return [f"{key}={str(value).lower()}" for key, value in others.items()]


def _when(text: str) -> int:
    try:
        return parse_when(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[-1]
