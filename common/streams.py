"""Handles standard streams that are closed or not writable, so that no job fails because of its output."""

import contextlib
import os
import sys
from typing import TextIO


def open_missing_streams() -> None:
    """Connects standard streams that the shell closed (`2>&-`) to the null device.

    Otherwise, the next file that the job opens would get the closed stream's file descriptor, and libraries would write
    their messages into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def discard(stream: TextIO) -> None:
    """Redirects a broken stream to the null device, because a failed flush at exit would change the exit status."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file, or a closed one
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


def encodable(text: str, stream: TextIO) -> str:
    """Escapes characters in a text if the encoding of the stream cannot represent them."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
