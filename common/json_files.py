"""The format of the JSON files of datasets and runs."""

import json
from typing import Any


def encode_json(value: Any, *, sort_keys: bool = False, ensure_ascii: bool = True) -> bytes:
    """Encodes JSON values as the content of a file: indented, with a line feed at the end.

    `ensure_ascii`: whether to escape non-ASCII characters.

    Raises:
      ValueError: a number is NaN or infinite.
    """
    text = json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=ensure_ascii, allow_nan=False)
    return f"{text}\n".encode()
