"""Files with one id per line: visitors to recommend to, items to deny."""

import re

from common import storage
from common.text import decode_text


def read_ids(path: str, flag: str) -> list[str]:
    """Reads ids, one per line; skips empty lines and repeated ids.

    Args:
      path: path or URI of the file.
      flag: the command-line flag that the path was given with, for error messages.

    Raises:
      ValueError: the file does not exist, starts with a header, or is not text.
    """
    if not storage.exists(path):
        raise ValueError(f"{flag} {path} does not exist; give a file of ids, one per line")
    lines = decode_text(storage.read_bytes(path), f"{flag} {path}").split(
        "\n"
    )  # `splitlines` would also split at characters that an id may contain
    if re.fullmatch("(visitor|user|customer|item|product)[ _-]?ids?", lines[0].strip(), re.IGNORECASE):
        raise ValueError(f"{flag} {path} starts with a header, {lines[0].strip()}; remove it: each line must be an id")
    return list(dict.fromkeys(line.rstrip("\r") for line in lines if line.rstrip("\r")))
