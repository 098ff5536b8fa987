"""Makes local folders for unfinished work, and removes the folders that killed processes left."""

import os
import shutil
import socket
import tempfile


def make_scratch(name: str, parent: str | None = None) -> str:
    """Creates a private folder, by default for temporary files, and removes abandoned folders of the same name."""
    parent = parent or tempfile.gettempdir()
    prefix = f".{name}.partial-{socket.gethostname()}-"
    _remove_abandoned(parent, prefix)
    return tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent)


def _remove_abandoned(parent: str, prefix: str) -> None:
    """Removes the folders that killed processes of this machine left."""
    for entry in os.listdir(parent):
        process = entry.removeprefix(prefix).partition("-")[0]
        if entry.startswith(prefix) and process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(os.path.join(parent, entry), ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
