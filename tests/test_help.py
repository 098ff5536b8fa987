"""What `--help` of every command of the three programs says: on a screen, at once, with defaults and an example."""

import argparse
import json
import os
import shlex
import subprocess
import sys

import pytest

import k8s.cli
import preprocessing.cli
import trainer.cli
from tools.tables import read_results
from benchmarks.start import COMMANDS, MOST_SECONDS, SCREEN_COLUMNS, SCREEN_LINES

PROGRAMS = {"preprocessing": preprocessing.cli, "k8s": k8s.cli, "trainer": trainer.cli}
HEAVY = ("tensorflow", "keras", "apache_beam", "pyarrow", "numpy", "matplotlib")

# every --help of a program in one process: status and text of each, and the heavy modules that they needed
ASK = """
import contextlib, importlib, io, json, sys
cli, answers = importlib.import_module(sys.argv[1] + ".cli"), {}
for command in sys.argv[2].split(","):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            cli.main([command, "--help"] if command else ["--help"])
        except SystemExit as stop:
            answers[command] = [stop.code, said.getvalue()]
print(json.dumps([answers, sorted(set(sys.argv[3].split(",")) & set(sys.modules))]))
"""


def parsers(program: str) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command; '' is that of the program."""
    parser = PROGRAMS[program]._build_parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {"": parser, **commands.choices}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_help_fits_a_screen_has_an_example_and_needs_nothing_heavy(program):
    names = ",".join(parsers(program))
    ask = [sys.executable, "-c", ASK, program, names, ",".join(HEAVY)]
    environment = os.environ | {"COLUMNS": str(SCREEN_COLUMNS)}
    done = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60, env=environment)
    answers, heavy = json.loads(done.stdout)
    assert heavy == []
    assert list(answers) == list(parsers(program))
    for command, (status, text) in answers.items():
        lines = text.splitlines()
        assert status == 0
        assert "example" in text, command
        assert len(lines) <= SCREEN_LINES, command
        assert max(map(len, lines)) <= SCREEN_COLUMNS, command


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_example_in_the_help_of_a_command_is_one_that_it_takes(program):
    for command, parser in parsers(program).items():
        if not command:
            continue
        _, _, example = parser.format_help().partition("example:\n")
        words = shlex.split(example.partition("\n\n")[0].replace("\\\n", ""))
        place = words.index(command)  # behind the program's name
        assert PROGRAMS[program]._build_parser().parse_args(words[place:]).command == command


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_default_is_told(program):
    for command, parser in parsers(program).items():
        for action in parser._actions:
            default = action.default
            if isinstance(default, str | int | float) and default is not False and default != argparse.SUPPRESS:
                told = " ".join(str(action.help).split())
                number = str(default).removesuffix(".0")
                assert f"default: {number}" in told, f"{command} {action.option_strings}"


def test_the_settings_of_prepare_are_told_with_their_defaults():
    assert "items.min_count=0" in parsers("preprocessing")["prepare"].format_help()


def test_the_benchmark_of_starting_times_every_command():
    measured = {package.partition(".")[0]: {"", *names} for package, names in COMMANDS.items()}
    assert measured == {program: set(parsers(program)) for program in PROGRAMS}


def test_the_record_of_starting_has_every_command_below_its_limit():
    figures = read_results()["start"]["figures"]["commands"]
    expected = {" ".join([package, name]).strip() for package, names in COMMANDS.items() for name in ("", *names)}
    assert set(figures) == expected, "run `python -m benchmarks.start`"
    assert [name for name, figure in figures.items() if figure["seconds"] >= MOST_SECONDS] == []
    assert [name for name, figure in figures.items() if figure["lines"] > SCREEN_LINES] == []
