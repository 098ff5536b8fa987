"""The result of one check of `doctor`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Result of a check in one word."""

    OK = "ok"
    """Nothing has to change."""
    SKIPPED = "skipped"
    """The check was not run; the finding has the reason."""
    WARNING = "warning"
    """Some jobs will be slower or lack a feature."""
    UNKNOWN = "unknown"
    """The check cannot be run on this machine."""
    FAILED = "failed"
    """A job will fail."""


class Result(NamedTuple):
    """The result of a check, without the name of the check."""

    found: str
    """Result, in a sentence."""
    state: State = State.OK
    """Severity of the result."""
    advice: str = ""
    """What to do; '' if there is nothing to do."""


@dataclass(frozen=True)
class Finding:
    """The result of one check of `doctor`."""

    check: str
    """Name of the check."""
    found: str
    """Result, in a sentence."""
    state: State = State.OK
    """Severity of the result."""
    advice: str = ""
    """What to do; '' if there is nothing to do."""


def is_healthy(findings: list[Finding]) -> bool:
    """Returns whether no check failed."""
    return all(finding.state != State.FAILED for finding in findings)


def format_error(error: Exception) -> str:
    """Returns the type and the message of an error."""
    return f"{type(error).__name__}: {error}"
