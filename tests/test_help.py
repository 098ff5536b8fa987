"""`--help` of every command fits a screen, prints at once, and states defaults and an example that works."""

import argparse
import json
import os
import shlex
import subprocess
import sys

import pytest

import cartwheel.cli
import cartwheel.refresh_cli
import k8s.cli
import preprocessing.cli
import trainer.cli
from benchmarks.start import COMMANDS, MOST_SECONDS, SCREEN_COLUMNS, SCREEN_LINES
from tools.commands import subcommands
from tools.tables import read_results

PROGRAMS = {"preprocessing": preprocessing.cli, "k8s": k8s.cli, "trainer": trainer.cli}
HEAVY = ("tensorflow", "keras", "apache_beam", "pyarrow", "numpy", "matplotlib")

# prints the status and text of every --help of a program, and which heavy modules they imported
SCRIPT = """
import contextlib, importlib, io, json, sys
cli, answers = importlib.import_module(sys.argv[1] + ".cli"), {}
for command in sys.argv[2].split(","):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            cli.main([command, "--help"] if command else ["--help"])
        except SystemExit as stop:
            answers[command] = [stop.code, printed.getvalue()]
print(json.dumps([answers, sorted(set(sys.argv[3].split(",")) & set(sys.modules))]))
"""


def parsers(program: str) -> dict[str, argparse.ArgumentParser]:
    """Returns the parser of each command by name; '' is the program itself."""
    parser = PROGRAMS[program].build_parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {"": parser, **commands.choices}


def help_texts(program: str, names: list[str]) -> dict[str, tuple[int, str]]:
    """Returns the status and the text of each command's `--help`; one process without heavy imports prints all."""
    arguments = [sys.executable, "-c", SCRIPT, program, ",".join(names), ",".join(HEAVY)]
    environment = os.environ | {"COLUMNS": str(SCREEN_COLUMNS)}
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=300, env=environment)
    answers, heavy = json.loads(done.stdout)
    assert heavy == []
    assert list(answers) == names
    return answers


def assert_fits_a_screen(text: str) -> None:
    lines = text.splitlines()
    assert len(lines) <= SCREEN_LINES
    assert max(map(len, lines)) <= SCREEN_COLUMNS


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_help_fits_a_screen_has_an_example_and_imports_nothing_heavy(program):
    for command, (status, text) in help_texts(program, list(parsers(program))).items():
        assert status == 0, command
        assert "example" in text, command
        assert_fits_a_screen(text)


def test_the_help_of_the_cartwheel_command_names_every_verb():
    ((status, text),) = help_texts("cartwheel", [""]).values()
    assert status == 0
    assert_fits_a_screen(text)
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ")][2:] == list(cartwheel.cli.VERBS)


def test_every_verb_of_the_cartwheel_command_has_the_help_of_its_job():
    for verb, (status, text) in help_texts("cartwheel", list(cartwheel.cli.VERBS)).items():
        assert status == 0, verb
        assert text.startswith(f"usage: cartwheel {verb}"), verb
        assert_fits_a_screen(text)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_example_in_the_help_of_a_command_parses(program):
    for command, parser in parsers(program).items():
        if not command:
            continue
        _, _, example = parser.format_help().partition("example:\n")
        words = shlex.split(example.partition("\n\n")[0].replace("\\\n", ""))
        index = words.index(command)  # after the name of the program
        assert PROGRAMS[program].build_parser().parse_args(words[index:]).command == command


def test_the_example_in_the_help_of_refresh_parses():
    (refresh,) = subcommands(cartwheel.refresh_cli.build_parser()).values()
    words = shlex.split(refresh.epilog.removeprefix("example:\n"))
    assert cartwheel.refresh_cli.build_parser().parse_args(words[1:]).export == "demo/export"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_states_every_default(program):
    for command, parser in parsers(program).items():
        for action in parser._actions:
            default = action.default
            if isinstance(default, str | int | float) and default is not False and default != argparse.SUPPRESS:
                text = " ".join(str(action.help).split())
                number = str(default).removesuffix(".0")
                assert f"default: {number}" in text, f"{command} {action.option_strings}"


def test_the_help_of_prepare_lists_its_settings_with_their_defaults():
    assert "items.min_count=0" in parsers("preprocessing")["prepare"].format_help()


def test_the_benchmark_of_start_up_times_every_command():
    measured = {package.partition(".")[0]: {"", *names} for package, names in COMMANDS.items()}
    assert measured == {program: set(parsers(program)) for program in PROGRAMS}


def test_the_record_of_start_up_has_every_command_below_its_limit():
    figures = read_results()["start"]["figures"]["commands"]
    expected = {" ".join([package, name]).strip() for package, names in COMMANDS.items() for name in ("", *names)}
    assert set(figures) == expected, "run `python -m benchmarks.start`"
    assert [name for name, figure in figures.items() if figure["seconds"] >= MOST_SECONDS] == []
    assert [name for name, figure in figures.items() if figure["lines"] > SCREEN_LINES] == []
