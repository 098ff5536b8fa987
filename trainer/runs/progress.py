"""Reads the files that show whether a call of `train` has changed a run."""

from common import storage
from trainer.runs.layout import RunLayout


def read_progress(workdir: str) -> tuple[bytes | None, ...]:
    """Returns the contents of the files that training changes as soon as it starts; None for absent files.

    A call that is refused, for example because the run has other settings, leaves these files as they are.
    """
    layout = RunLayout(workdir)
    return tuple(_read(path) for path in (layout.run, layout.history, layout.auto, layout.blend))


def _read(path: str) -> bytes | None:
    try:
        return storage.read_bytes(path)
    except FileNotFoundError:
        return None
