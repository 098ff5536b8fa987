"""Paths of the files in an export.

The SavedModel format reserves `assets.extra` for files that no graph reads, and TensorFlow Serving ignores it.
"""

import json

from common import storage
from common.storage.paths import join

MARKER = "saved_model.pb"
"""Readers of an object store treat a directory without this file as unfinished."""
CARD = "assets.extra/model_card.md"
"""The model card."""
INFO = "assets.extra/model.json"
"""A JSON object with the `name` of the model, such as mf."""


def read_name(uri: str) -> str:
    """Reads the name of the model in an export.

    Raises:
      ValueError: the directory is not an export of this version.
    """
    try:
        return str(json.loads(storage.read_bytes(join(uri, INFO)))["name"])
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{uri} has no {INFO} with the name of the model; export the run again") from error
