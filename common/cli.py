"""Shared parts of the command lines: exit statuses, subcommands, flags, printed results."""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from common.errors import InUseError, OwnershipLostError
from common.streams import discard, encodable
from common.text import decode_text, printable

log = logging.getLogger(__name__)

DONE, FAILED, MISUSED, PREEMPTED = 0, 1, 2, 75
"""Exit statuses of every command. After `PREEMPTED`, running the same command again resumes the run."""
IN_USE = 73
"""Exit status if another process owns the output (EX_CANTCREAT of sysexits.h). Kubernetes limits the number of restarts
after this status, but not after `PREEMPTED`."""
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit statuses after Ctrl-C and after SIGTERM, as shells report them."""
Commands = argparse._SubParsersAction
"""The group of subcommands that `make_parser` returns."""


class Parser(argparse.ArgumentParser):
    """Argument parser that prints in the terminal's encoding and escapes control characters.

    If `fromfile_prefix_chars` is "@", an argument @FILE stands for the arguments in FILE, one per line.
    """

    def _read_args_from_files(self, arg_strings: list[str]) -> list[str]:
        return self._expand(arg_strings, ())

    def _expand(self, arguments: Iterable[str], parents: tuple[str, ...]) -> list[str]:
        """Replaces @FILE by the lines of FILE, recursively; `parents` are the files being read."""
        expanded = []
        for argument in arguments:
            path = argument[1:]
            if not argument.startswith("@"):
                expanded.append(argument)
                continue
            if path in parents:
                self.error(f"{path} reads arguments from itself; remove @{path} from it")
            try:
                with open(path, "rb") as file:
                    lines = decode_text(file.read(), path).splitlines()
            except (OSError, ValueError) as error:
                self.error(str(error))
            expanded += self._expand(lines, (*parents, path))
        return expanded

    def _print_message(self, message: str, file: Any = None) -> None:
        stream = file or sys.stderr
        super()._print_message(encodable(printable(message), stream) if stream else message, file)


@contextmanager
def usage_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Reports a ValueError of the block as a usage error of `parser`, which ends the program with status 2."""
    try:
        yield
    except ValueError as error:
        parser.error(str(error))


def failure_status(error: Exception) -> int:
    """Returns the exit status of a command that fails with `error`.

    `IN_USE` if another process owns the output, `PREEMPTED` if another process took it over, otherwise `FAILED`.
    """
    if isinstance(error, InUseError):
        return IN_USE
    return PREEMPTED if isinstance(error, OwnershipLostError) else FAILED


def make_parser(program: str, description: str, *, epilog: str = "") -> tuple[argparse.ArgumentParser, Commands]:
    """Returns a program's parser, and its subcommands for `add_command`.

    Args:
      program: command to type, such as `python -m trainer`.
      description: first paragraph of the help.
      epilog: text before the last paragraph of the help, which explains `COMMAND --help` and @FILE.
    """
    parser = Parser(
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
    """Adds a subcommand and returns its parser.

    Args:
      commands: group of subcommands, from `make_parser`.
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
    """Adds the flags `--json` and `--verbose`."""
    command.add_argument("--json", action="store_true", help="print the whole result as JSON instead of a summary")
    command.add_argument("--verbose", action="store_true", help="log more, and show the traceback of an error")


def add_settings_flag(command: argparse.ArgumentParser, example: str) -> None:
    """Adds the flag `--set KEY=VALUE …`, which may be repeated. Its help shows `example`."""
    command.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help=f"settings to change, such as {example}",
    )


def print_result(result: Mapping[str, Any], summary: Callable[[Any], str], *, as_json: bool) -> None:
    """Prints a summary of a result or, if `as_json`, the whole result."""
    print_text(to_json(result) if as_json else summary(result))


def to_json(result: Mapping[str, Any]) -> str:
    """Formats a result as JSON; escapes non-ASCII characters unless the output's encoding is Unicode."""
    is_unicode = sys.stdout is not None and (sys.stdout.encoding or "").lower().startswith("utf")
    return json.dumps(result, indent=2, ensure_ascii=not is_unicode, allow_nan=False)


def print_text(text: str, *, end: str = "\n") -> None:
    """Prints a text. Logs an error such as a full disk instead of raising it; ignores a closed pipe."""
    if sys.stdout is None:  # closed by the shell
        return
    try:
        sys.stdout.write(encodable(printable(text), sys.stdout) + end)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            log.warning(
                "the output could not be printed: %s; all other work of the command is done, so run the command again "
                "only if you need this output",
                error,
            )
        discard(sys.stdout)
