"""Shared parts of the command lines: exit statuses, subcommands, flags, printed results."""

import argparse
import json
import signal
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

DONE, FAILED, MISUSED, PREEMPTED = 0, 1, 2, 75
"""Exit statuses of every command; after `PREEMPTED`, the same command resumes the run."""
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses after Ctrl-C and after SIGTERM, as shells report them."""

Commands = argparse._SubParsersAction
"""The group of subcommands that `make_parser` returns."""


def make_parser(program: str, description: str, *, epilog: str = "") -> tuple[argparse.ArgumentParser, Commands]:
    """Builds the parser of a program with subcommands.

    Args:
      program: command to type, such as `python -m trainer`.
      description: first paragraph of the help.
      epilog: last paragraph of the help.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=f"{epilog} `{program} COMMAND --help` shows the flags of a command, their defaults and an example. "
        "@FILE among the arguments reads arguments from FILE, one per line.".strip(),
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=metadata.version("cartwheel"))
    return parser, parser.add_subparsers(dest="command", required=True, metavar="COMMAND")


def add_command(commands: Commands, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """Adds a subcommand.

    Args:
      commands: subcommands of the program.
      name: name of the subcommand.
      summary: one line of help, lowercase and without a full stop.
      example: arguments for the example in the help.
    """
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.epilog = f"example:\n  {command.prog} {example}"
    return command


def add_output_flags(command: argparse.ArgumentParser) -> None:
    """Adds `--json` and `--verbose`, which every job has."""
    command.add_argument("--json", action="store_true", help="print the whole result as JSON instead of a summary")
    command.add_argument("--verbose", action="store_true", help="log more, with the traceback of an error")


def add_settings_flag(command: argparse.ArgumentParser, example: str) -> None:
    """Adds `--set KEY=VALUE …`, which may be repeated."""
    command.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help=f"settings to change: {example}"
    )


def print_result(result: Mapping[str, Any], summary: Callable[[Any], str], *, as_json: bool) -> None:
    """Prints a summary of a result, or the whole result as JSON."""
    print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False) if as_json else summary(result))
