"""How long storage waits and how much disk it takes: settings of the machine, so they come from the environment."""

import os
from dataclasses import dataclass

_PATIENCE, _CACHE = "CARTWHEEL_STORAGE_PATIENCE_SECONDS", "CARTWHEEL_CACHE_BYTES"
VARIABLES = {"patience_seconds": _PATIENCE, "cache_bytes": _CACHE}
"""The environment variable that sets each limit."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of everything that goes over a network.

    patience_seconds   how long an operation is tried again while the store does not answer
    cache_bytes        local copies of remote files; what is in use is kept even beyond it
    """

    patience_seconds: float = 180.0
    cache_bytes: int = 16 << 30

    def __post_init__(self) -> None:
        if self.patience_seconds < 0 or self.cache_bytes < 0:
            raise ValueError(f"{_PATIENCE} and {_CACHE} must not be negative, got {self}")


def read_limits() -> Limits:
    """The limits that the environment sets.

    Raises:
      ValueError: a variable is not a number, or negative.
    """
    given = {name: os.environ[name] for name in (_PATIENCE, _CACHE) if name in os.environ}
    try:
        return Limits(
            patience_seconds=float(given.get(_PATIENCE, Limits.patience_seconds)),
            cache_bytes=int(given.get(_CACHE, Limits.cache_bytes)),
        )
    except ValueError as error:
        raise ValueError(f"{error}; set {_PATIENCE} to seconds and {_CACHE} to whole bytes") from error
