"""Paths of the files in an export.

The SavedModel format reserves `assets.extra` for files that no graph reads; TensorFlow Serving reads
only its warm-up requests from there.
"""

import json
from collections.abc import Mapping
from typing import Any

from common import storage
from common.storage.paths import join
from trainer.runs.layout import RunLayout

MARKER = "saved_model.pb"
"""File that is written last: in an object store, readers treat a directory without it as unfinished."""
VARIABLES = "variables/variables"
"""Path prefix of the checkpoint, which contains the weights and the mask of the items on offer."""
CARD = "assets.extra/model_card.md"
"""The model card."""
INFO = "assets.extra/model.json"
"""A JSON object. `name` is the name of the model, such as mf. `offer` contains the number of items on offer, and the
numbers of excluded items by reason. `half_lives_days` lists the half-lives of the model's trends; it may be empty."""
WARM_UP = "assets.extra/tf_serving_warmup_requests"
"""Requests that TensorFlow Serving runs before it serves a version; it prescribes the path."""
ITEMS = "assets/items.txt"
"""The ids of all items, one per line."""


def write_info(uri: str, info: Mapping[str, Any]) -> None:
    """Writes the description of an export."""
    storage.write_bytes(join(uri, INFO), (json.dumps(info, allow_nan=False) + "\n").encode())


def read_info(uri: str) -> dict[str, Any]:
    """Reads the description of an export.

    Raises:
      ValueError: the directory is not an export of this version.
    """
    try:
        info = json.loads(storage.read_bytes(join(uri, INFO)))
        return {**info, "name": str(info["name"]), "half_lives_days": list(info["half_lives_days"])}
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{uri} has no {INFO} of this version; export the run again") from error


def check_export(uri: str) -> None:
    """Checks that a directory is a complete export.

    Raises:
      ValueError: it is not a complete export; the message says how to publish one.
    """
    if storage.exists(join(uri, MARKER)):
        return
    is_run = storage.exists(RunLayout(uri).run)
    command = f"cartwheel export --workdir {uri if is_run else 'RUN'} --output NEW"
    found = "is a run" if is_run else "is not a SavedModel"
    raise ValueError(f"{uri} {found}; give the directory that `{command}` publishes")
