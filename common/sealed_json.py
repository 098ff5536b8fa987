"""JSON files that contain a checksum of their content, which detects damage even if the file can still be parsed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from common.json_files import encode_json

_CHECKSUM = "checksum"


def encode_sealed(values: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """Encodes values as a JSON object with their checksum in the key `checksum`.

    Raises:
      ValueError: a number is NaN or infinite.
    """
    sealed = {**values, _CHECKSUM: _checksum_of(values)}
    return encode_json(sealed, sort_keys=sort_keys)


def decode_sealed(content: bytes) -> dict[str, Any]:
    """Decodes the output of `encode_sealed` and verifies its checksum.

    Raises:
      ValueError: the content is not valid JSON, or its checksum is missing or wrong.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}") from error
    found = values.pop(_CHECKSUM, None) if isinstance(values, dict) else None
    # a comparison of bytes: 1, 1.0 and true are equal values
    if found is None or found != _checksum_of(values):
        raise ValueError("the checksum is missing or does not match the content")
    return dict(values)


def _checksum_of(values: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, for any order of keys; raises ValueError for NaN or infinite numbers."""
    try:
        content = json.dumps(values, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"a number is not finite: {error}") from error
    return hashlib.sha256(content.encode()).hexdigest()
