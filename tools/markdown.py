"""Parts of generated documents in Markdown: tables, and the source of their figures."""

from collections.abc import Mapping
from typing import Any


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Formats a Markdown table. Rows must be as long as the header."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_source(record: Mapping[str, Any], more: str) -> str:
    """Returns a sentence that says how a figure was measured, followed by `more`.

    `record` contains the command, commit and machine of the measurement.
    """
    return f"`{record['command']}` at {record['commit']}, {describe_machine(record)}{more}."


def describe_machine(record: Mapping[str, Any]) -> str:
    """Describes the machine of a measurement."""
    machine = record["machine"]
    return f"{machine['cpus']} cores ({machine['processor']}), no GPU"


def format_met(is_met: bool) -> str:
    """Formats whether a target is met, as `yes` or a bold `no`."""
    return "yes" if is_met else "**no**"
