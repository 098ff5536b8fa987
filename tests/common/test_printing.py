"""Text that cannot be printed does not change the exit status, and input cannot control the terminal."""

import json
import logging
import os
import subprocess
import sys

import pytest

from common.logs import start_log
from common.text import printable

SCRIPT = r"""
import logging, sys
from common import cli, logs
parser, _ = cli.make_parser("program", "Ends with … and 'é'.")
if "--help" in sys.argv:
    parser.parse_args(["--help"])
if "--wrong" in sys.argv:
    parser.error("unknown \x1b[31mflag")
logs.start_log(verbose=False)
logging.info("an item \x1b[31mred\r")
result = {"id": "\u0161\u00e9\x9b\U0001f600", "ids": list(range(100_000))}
cli.print_result(result, lambda result: "item " + result["id"], as_json="--json" in sys.argv)
sys.exit(0)
"""


def run(*arguments: str, redirect: str = "", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    command = f'"$0" -c "$1" {" ".join(arguments)} {redirect}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, sys.executable, SCRIPT],
        capture_output=True,
        check=False,
        timeout=300,
        env=os.environ | environment,
    )


def test_control_characters_are_escaped_and_other_text_is_kept():
    assert printable("a\x1b[31m\x9b\r\u202e\udc80") == "a\\u001b[31m\\u009b\\u000d\\u202e\\udc80"
    assert printable("Déjà\tvu 東京 😀\nnext") == "Déjà\tvu 東京 😀\nnext"


def test_a_log_line_and_a_usage_error_do_not_control_the_terminal(capsys):
    assert run("--wrong").stderr.endswith(b"program: error: unknown \\u001b[31mflag\n")
    root = logging.getLogger()
    before = root.handlers, root.level
    root.handlers = []
    try:
        start_log(verbose=False)
        root.warning("item %s", "\x1b]0;title\x07")
    finally:
        root.handlers, root.level = before
    assert capsys.readouterr().err.endswith("WARNING root: item \\u001b]0;title\\u0007\n")


@pytest.mark.parametrize(
    ("redirect", "warning"),
    [
        ("> /dev/full", b"run the command again only if you need this output\n"),
        ("| true", b""),
        ("| head -c 5", b""),
        (">&-", b""),
        ("2>&-", b""),
        ("2> /dev/full", b""),
    ],
)
def test_a_result_or_a_log_that_cannot_be_printed_does_not_change_the_status(redirect, warning):
    done = run("--json", redirect=redirect)
    assert done.returncode == 0
    assert done.stderr.endswith(warning)
    assert b"Traceback" not in done.stderr
    if redirect.startswith("2"):
        assert json.loads(done.stdout)["ids"][-1] == 99_999, "no log line is in the result"


def test_a_stream_without_unicode_gets_escapes():
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    assert json.loads(run("--json", **ascii_only).stdout)["id"] == "š\u00e9\x9b😀"
    summary = run(**ascii_only)
    assert (summary.returncode, summary.stdout) == (0, rb"item \u0161\xe9\u009b\U0001f600" + b"\n")
    assert run("--help", **ascii_only).returncode == 0
    # everything but control characters is kept in Unicode
    assert json.loads(run("--json", PYTHONIOENCODING="utf-8").stdout)["id"] == "š\u00e9\x9b😀"
