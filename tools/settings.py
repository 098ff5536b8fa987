"""Writes `docs/settings.md` from the config dataclasses: every setting, its default and what it does."""

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from contract.storage.limits import VARIABLES, Limits
from preprocessing.config import PrepareConfig
from trainer.config import RunConfig
from trainer.ranking.config import EvaluationConfig

SETTINGS = Path(__file__).parent.parent / "docs" / "settings.md"

_HEADER = """# Settings

Written by `python -m benchmarks.settings` from the dataclasses. What has a flag of its own in `--help` is
given by it, all else by `--set KEY=VALUE …`; values are checked before anything runs.
A preset of the trainer has its own values: `run.json` of a run holds those it had.
"""
_CONFIGS: dict[str, type] = {
    "preprocessing prepare": PrepareConfig,
    "trainer train": RunConfig,
    "trainer evaluate": EvaluationConfig,
}
# `name   what it means`, or `name, name   what they mean`, as the docstrings of the configs list their fields
_LISTED = re.compile(r"^(\w+(?:, \w+)*)\s{2,}(\S.*)$")


def main() -> int:
    """Renews the page; with `--check`, fails where it differs."""
    text = render()
    if "--check" in sys.argv:
        return int(not SETTINGS.exists() or SETTINGS.read_text() != text)
    SETTINGS.write_text(text)
    return 0


def render() -> str:
    """The whole page."""
    parts = [_HEADER]
    for command, config in _CONFIGS.items():
        parts += [f"\n## python -m {command}\n", *_sections(config, "", None)]
    return "\n".join([*parts, *_environment()])


def _environment() -> Iterator[str]:
    """What is set by environment variables, for it is of a machine and not of a run."""
    told = described(Limits)
    yield "\n## The environment, for every command\n\n| variable | default | what it does |\n| --- | --- | --- |"
    for field in fields(Limits):
        yield f"| `{VARIABLES[field.name]}` | {_default(field)} | {told[field.name]} |"
    yield ""


def _sections(config: type, prefix: str, value: object) -> Iterator[str]:
    """A table of the config's own settings, then those of the configs in it.

    Args:
      value: the config that the one around it begins with, whose values then are the defaults; None: there is none.
    """
    hints, told = get_type_hints(config), described(config)
    nested = {field.name: _configs(hints[field.name]) for field in fields(config)}
    summary = (inspect.getdoc(config) or "").partition("\n")[0]
    kinds = " or ".join(f"`{prefix}kind={kind}`" for kind in get_args(hints.get("kind")))
    of_kind = f", with {kinds}" if kinds else ""
    yield f"\n### `{prefix.rstrip('.') or 'the command itself'}`{of_kind}\n\n{summary}\n"
    own = [field for field in fields(config) if not nested[field.name] and field.name != "kind"]
    if own:
        yield "| setting | default | what it does |\n| --- | --- | --- |"
    for field in own:
        default = _default(field) if value is None else _text(getattr(value, field.name))
        yield f"| `{prefix}{field.name}` | {default} | {told.get(field.name, '')} |"
    for field in fields(config):
        begun = _value(field) if value is None else getattr(value, field.name)
        for inner in nested[field.name]:
            yield from _sections(inner, f"{prefix}{field.name}.", begun if isinstance(begun, inner) else None)


def described(config: type) -> dict[str, str]:
    """What a config's docstring says of its fields, by name."""
    told: dict[str, str] = {}
    last: list[str] = []
    for line in (inspect.getdoc(config) or "").splitlines():
        if found := _LISTED.match(line):
            last = found[1].split(", ")
            told |= dict.fromkeys(last, found[2])
        elif last and line.startswith("  "):
            told |= {name: f"{told[name]} {line.strip()}" for name in last}
        else:
            last = []
    return {name: text.replace("|", "\\|") for name, text in told.items()}


def _configs(hint: Any) -> list[type]:
    """The dataclasses that a field may hold."""
    options = get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is not None else (hint,)
    return [option for option in options if is_dataclass(option) and isinstance(option, type)]


def _default(field: Field[Any]) -> str:
    value = _value(field)
    return "required" if value is MISSING else _text(value)


def _value(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    sys.exit(main())
