"""The `cartwheel` command finds the command line of each verb."""

import sys
from types import SimpleNamespace

import pytest

from cartwheel import cli


@pytest.fixture
def called(monkeypatch):
    """Replaces the four command lines by functions that record their calls: (module, arguments, program)."""
    calls = []

    def fake(name):
        def main(arguments, *, program):
            calls.append((name, arguments, program))
            return 0

        return SimpleNamespace(main=main)

    for name in ("preprocessing.cli", "trainer.cli", "k8s.cli", "cartwheel.refresh_cli"):
        monkeypatch.setitem(sys.modules, name, fake(name))
    return calls


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["prepare", "--events", "e"], ("preprocessing.cli", ["prepare", "--events", "e"], "cartwheel")),
        (["train", "--preset", "mf"], ("trainer.cli", ["train", "--preset", "mf"], "cartwheel")),
        (["report", "--workdir=R"], ("trainer.cli", ["report", "--workdir=R"], "cartwheel")),
        (["report", "--data", "D"], ("preprocessing.cli", ["report", "--data", "D"], "cartwheel")),
        (["refresh", "E", "--output", "N"], ("cartwheel.refresh_cli", ["refresh", "E", "--output", "N"], "cartwheel")),
        (["submit", "status"], ("k8s.cli", ["status"], "cartwheel submit")),
    ],
)
def test_a_verb_calls_its_command_line(called, words, expected):
    assert cli.main(words) == 0
    assert called == [expected]


@pytest.mark.parametrize(("words", "message"), [([], "required: VERB"), (["trian"], "invalid choice: 'trian'")])
def test_a_missing_or_unknown_verb_exits_with_2(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("0.")
