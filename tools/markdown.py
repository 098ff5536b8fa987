"""Parts of generated documents in Markdown: tables, and the source of their figures."""

from collections.abc import Mapping
from typing import Any


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Formats a Markdown table. Each row must have as many cells as the header."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_source(record: Mapping[str, Any], more: str) -> str:
    """Returns a sentence that says how a figure was measured.

    Args:
      record: record of a measurement, with its command, commit and machine.
      more: text to add at the end of the sentence.
    """
    return f"`{record['command']}` at {record['commit']}, {describe_machine(record)}{more}."


def describe_machine(record: Mapping[str, Any]) -> str:
    """Returns a description of the machine on which a record was measured."""
    machine = record["machine"]
    return f"{machine['cpus']} cores ({machine['processor']}), no GPU"


def format_met(is_met: bool) -> str:
    """Returns `yes` if a target is met, else a bold `no`."""
    return "yes" if is_met else "**no**"
