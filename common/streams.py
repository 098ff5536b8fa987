"""Handles standard streams that are closed or not writable, so that no job fails because of its output."""

import contextlib
import os
import sys
from typing import TextIO


def open_missing_streams() -> None:
    """Connects standard streams that the shell closed (`2>&-`) to the null device.

    Otherwise, the next file to be opened would get the free descriptor, and messages would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def discard(stream: TextIO) -> None:
    """Redirects a broken stream to the null device, because a failed flush would change the exit status."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file, or a closed one
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


def encodable(text: str, stream: TextIO) -> str:
    """Escapes the characters that the stream's encoding cannot represent."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
