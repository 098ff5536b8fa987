"""Errors that callers handle, and errors about damaged files."""

from collections.abc import Iterator
from contextlib import contextmanager


class ContractError(ValueError):
    """The directory is not a dataset, or the dataset is damaged or has an unsupported version."""


class OwnershipError(OSError):
    """Another process owns the directory."""


class InUseError(OwnershipError):
    """The owner was there first; this process has changed nothing."""


class OwnershipLostError(OwnershipError):
    """The owner took over when this process was suspended or cut off from the storage."""


@contextmanager
def explain_damage(path: str, advice: str) -> Iterator[None]:
    """Translates errors that occur while a file is decoded into a ValueError that names the file.

    Args:
      path: the file.
      advice: what to do.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); {advice}") from error
