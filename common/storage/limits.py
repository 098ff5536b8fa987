"""Limits of storage operations. They depend on the machine, so environment variables set them."""

import os
from dataclasses import dataclass

_PATIENCE, _CACHE = "CARTWHEEL_STORAGE_PATIENCE_SECONDS", "CARTWHEEL_CACHE_BYTES"
VARIABLES = {"patience_seconds": _PATIENCE, "cache_bytes": _CACHE}
"""The environment variable that sets each limit."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the storage operations that use a network."""

    patience_seconds: float = 180.0
    """How long a failing operation is retried, in seconds."""
    cache_bytes: int = 16 << 30
    """Maximum total size of the cache of remote files. Files in use are kept even if they exceed this size."""

    def __post_init__(self) -> None:
        if self.patience_seconds < 0 or self.cache_bytes < 0:
            raise ValueError(
                f"patience and cache size must not be negative, got {self.patience_seconds} and {self.cache_bytes}"
            )


def read_limits() -> Limits:
    """Reads the limits from the environment.

    Raises:
      ValueError: an environment variable is not a number, or is negative.
    """
    given = {name: os.environ[name] for name in (_PATIENCE, _CACHE) if name in os.environ}
    try:
        return Limits(
            patience_seconds=float(given.get(_PATIENCE, Limits.patience_seconds)),
            cache_bytes=int(given.get(_CACHE, Limits.cache_bytes)),
        )
    except ValueError as error:
        raise ValueError(
            f"{error}; set {_PATIENCE} to a number of seconds, and {_CACHE} to a whole number of bytes"
        ) from error
