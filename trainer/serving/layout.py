"""Paths of the files in an export.

The SavedModel format reserves `assets.extra` for files that no graph reads; TensorFlow Serving reads
only its warm-up requests from there.
"""

from collections.abc import Mapping
from typing import Any

from common import storage
from common.sealed_json import decode_sealed, encode_sealed
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
numbers of excluded items by reason. `half_lives_days` lists the half-lives of the model's trends; it may be empty.
`files` has the SHA-256 of every other file except the model card, by name."""
WARM_UP = "assets.extra/tf_serving_warmup_requests"
"""Requests that TensorFlow Serving runs before it serves a version; it prescribes the path."""
ITEMS = "assets/items.txt"
"""The ids of all items, one per line."""


def write_info(uri: str, info: Mapping[str, Any]) -> None:
    """Writes the file `INFO` of an export: the values of `info` and the checksums of the export's files."""
    names = [name for name in storage.list_files(uri) if name not in (CARD, INFO)]
    checksums = {name: storage.sha256(join(uri, name)) for name in names}
    storage.write_bytes(join(uri, INFO), encode_sealed({**info, "files": checksums}))


def read_info(uri: str) -> dict[str, Any]:
    """Reads the file `INFO`, which describes an export.

    Raises:
      ValueError: the description is missing, damaged, or of another version.
    """
    try:
        info = decode_sealed(storage.read_bytes(join(uri, INFO)))
        checks = {"name": str, "offer": dict, "half_lives_days": list, "files": dict}
        return {**info, **{key: kind(info[key]) for key, kind in checks.items()}}
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{INFO} in {uri} is missing, damaged or from another version of Cartwheel; export the run again"
        ) from error


def check_files(uri: str, checksums: Mapping[str, str], source: str) -> None:
    """Checks that all files of an export are present and undamaged.

    Args:
      uri: the export, or a copy of it.
      checksums: SHA-256 of the files by name, from `read_info`.
      source: the export to name in the error message.

    Raises:
      ValueError: a file is missing or damaged.
    """
    for name, expected in checksums.items():
        path = join(uri, name)
        if not storage.exists(path):
            raise ValueError(f"{source} has no {name}; export the run again")
        if storage.sha256(path) != expected:
            raise ValueError(f"{join(source, name)} is damaged: its checksum is wrong; export the run again")


def check_export(uri: str) -> None:
    """Checks that a directory is a complete export.

    Raises:
      ValueError: the directory is not a complete export.
    """
    if storage.exists(join(uri, MARKER)):
        return
    is_run = storage.exists(RunLayout(uri).run)
    command = f"cartwheel export --workdir {uri if is_run else 'RUN'} --output NEW"
    found = "is a run" if is_run else "is not a SavedModel"
    raise ValueError(f"{uri} {found}; give the directory that `{command}` publishes")
