"""The page of commands agrees with the argument parsers."""

import re

from cartwheel.cli import VERBS
from tools.commands import COMMANDS, render


def test_the_page_is_up_to_date():
    assert COMMANDS.read_text() == render(), "run `python -m tools`"


def test_every_verb_has_a_section_with_its_flags_and_an_example():
    sections = re.split(r"^##+ ", render(), flags=re.MULTILINE)
    for verb in set(VERBS) - {"submit"}:
        (section,) = [section for section in sections if section.startswith(f"cartwheel {verb}\n")]
        assert "| `--verbose` |" in section
        assert f"```bash\ncartwheel {verb} " in section


def test_the_width_of_the_terminal_does_not_change_the_page(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert render() == COMMANDS.read_text()
