"""The command line of `cartwheel refresh`: `preprocessing` reads item tables, `trainer` refreshes the export."""

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from common import cli, logs
from common.cli import DONE
from common.signals import StopSignals, describe_stop
from common.uris import refuse_credentials_in_arguments
from trainer.config.flags import add_offer_flags, offer_flags
from trainer.pages.summaries import summarize_offer

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None, *, program: str = "cartwheel") -> int:
    """Runs `cartwheel refresh` and returns its exit status.

    Args:
      arguments: command line arguments; None: those of the process.
      program: first words of the command line, for usage and examples.

    Returns:
      0 done; 1 failed; 2 wrong arguments; 73 another process owns the output; 75 another process took it over; 130
        Ctrl-C; 143 SIGTERM or SIGHUP.
    """
    parser = build_parser(program)
    given = parser.parse_args(arguments)
    with cli.usage_errors(parser):
        refuse_credentials_in_arguments(given)
    if bool(given.data) == bool(given.items or given.shop):
        parser.error("give a newer table of items (--items or --shop) or a newer dataset (--data)")
    if given.data and given.map:
        parser.error("--map names the columns of a table of items, but --data is a dataset; drop --map")
    logs.start_log(verbose=given.verbose)
    stop = StopSignals()
    try:
        logs.import_tensorflow(verbose=given.verbose)
        from cartwheel.api import refresh

        result = refresh(
            given.export,
            given.output,
            items=given.items,
            shop=given.shop,
            columns=dict(given.map),
            data=given.data,
            **offer_flags(given),
        )
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if stop.caused(error):
            log.error("%s", describe_stop(stop, given.output, resumes=False), exc_info=given.verbose)
            return stop.status
        if not isinstance(error, Exception):
            raise
        is_expected = isinstance(error, ValueError | OSError | ModuleNotFoundError)
        log.error("%s", error if is_expected else f"{type(error).__name__}: {error}", exc_info=given.verbose)
        return cli.failure_status(error)
    cli.print_result(result, summarize, as_json=given.json)
    return DONE


def summarize(result: dict[str, Any]) -> str:
    """Formats the result of a refresh for the terminal."""
    first = f"Published {result['model']} to {result['output']}: {result['added']:,} items added to the offer, "
    events = result["trend_events"]
    trend = [f"Trend: {events:,} newer events counted"] if events else []
    return "\n".join([f"{first}{result['removed']:,} removed", *summarize_offer(result["offer"]), *trend])


def build_parser(program: str = "cartwheel") -> argparse.ArgumentParser:
    """Builds the parser; `refresh` is its only command."""
    parser, commands = cli.make_parser(program, str(__doc__))
    refresh = cli.add_command(
        commands,
        "refresh",
        "publish an export again with the items that are on offer now, without training",
        "demo/export --output demo/new --items items.csv --map id=sku availability=stock",
    )
    add = refresh.add_argument
    add("export", metavar="EXPORT", help="directory that `export` or `refresh` published; it stays as it is")
    add("--output", required=True, metavar="URI", help="new directory; published whole or not at all")
    add("--items", metavar="GLOB", help="newer table with one row per item: CSV, Parquet or JSON Lines")
    add("--shop", metavar="FILE", help="shop.toml; its item_table names the columns and the files of the table")
    add(
        "--map",
        action="extend",
        nargs="+",
        default=[],
        type=_parse_column,
        metavar="NAME=COLUMN",
        help="columns of the table: id=, availability=, category= (for a path, several columns, separated by commas)",
    )
    add(
        "--data",
        metavar="DATASET",
        help="newer prepared dataset, instead of a table of items; it describes the items as known at the start of its "
        "validation split, and its events update the trend of the items",
    )
    add_offer_flags(refresh)
    cli.add_output_flags(refresh)
    return parser


def _parse_column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals or not column:
        raise argparse.ArgumentTypeError(f"--map must have the form NAME=COLUMN, got {text!r}")
    return name, column
