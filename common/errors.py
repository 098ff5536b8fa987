"""Errors that callers handle, and errors about damaged files."""

from collections.abc import Iterator
from contextlib import contextmanager


class ContractError(ValueError):
    """The directory is not a dataset, or the dataset is damaged or has an unsupported version."""


class OwnershipError(OSError):
    """Another process owns the directory."""


class InUseError(OwnershipError):
    """Another process already owned the directory, so this process has changed nothing in it."""


class OwnershipLostError(OwnershipError):
    """Another process took over the directory while this process was suspended or could not reach the storage."""


@contextmanager
def explain_damage(path: str, advice: str) -> Iterator[None]:
    """Raises ValueError with `advice` if the content of a file cannot be decoded inside the context.

    Args:
      path: the file that is decoded.
      advice: what the user should do.

    Raises:
      ValueError: the file is damaged.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); {advice}") from error
