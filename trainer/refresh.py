"""The refresh job: publishes an export again with other items on offer, without training or tracing.

The mask of the items on offer is a variable of the SavedModel. Only its value changes: the graph and all weights are
copied, so all answers are equal but for the items that lists may contain.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from common import storage
from common.storage.paths import join
from trainer.data.dataset import read_vocabulary
from trainer.data.offer import OfferRules, find_offer
from trainer.serving import layout

log = logging.getLogger(__name__)

_MASK = "is_offered/.ATTRIBUTES/VARIABLE_VALUE"
"""Key of the mask in the checkpoint of the SavedModel: an attribute of `ServingModel`."""
_FINGERPRINT = "fingerprint.pb"
"""Optional file with a hash of the checkpoint, which is no longer true."""


def refresh(*, export: str, output: str, facts: pa.Table, rules: OfferRules | None = None) -> dict[str, Any]:
    """Publishes an export with the items that are on offer now, whole or not at all; `export` is left unchanged.

    Args:
      export: directory or URI that `export` or `refresh` published.
      output: directory or URI, which must not exist.
      facts: table of `ITEM_FACTS_SCHEMA`: availability and categories of the items.
      rules: which items are on offer; None: all that are not known to be unavailable.

    Returns:
      Paths, name, the offer, and the number of items that it `added` and `removed`.

    Raises:
      FileExistsError: `output` exists.
      ValueError: `export` is not an export of this version, or the offer is wrong; see `find_offer`.
    """
    storage.refuse_existing(output, marker=layout.MARKER)
    layout.check_export(export)
    info = layout.read_info(export)
    offer = find_offer(read_vocabulary(join(export, layout.ITEMS)), facts, rules or OfferRules())
    with storage.publish_directory(output, marker=layout.MARKER) as staging:
        replaced = (os.path.dirname(layout.VARIABLES) + "/", layout.INFO, _FINGERPRINT)
        for name in storage.list_files(export):
            if not name.startswith(replaced):
                _copy(join(export, name), os.path.join(staging, name))
        with _local_variables(export) as prefix:
            earlier = _write_mask(prefix, os.path.join(staging, layout.VARIABLES), offer.is_offered, export)
        layout.write_info(staging, info | {"offer": offer.to_json()})
    added, removed = int((offer.is_offered & ~earlier).sum()), int((earlier & ~offer.is_offered).sum())
    message = "%s: %d of %d items are on offer, %d added and %d removed"
    log.info(message, output, offer.is_offered.sum(), len(earlier), added, removed)
    return {
        "export": export,
        "output": output,
        "model": info["name"],
        "items": len(earlier),
        "offer": offer.to_json(),
        "added": added,
        "removed": removed,
    }


def _write_mask(prefix: str, output: str, is_offered: np.ndarray, export: str) -> np.ndarray:
    """Copies a checkpoint with another mask [I], and returns the earlier one."""
    types = tf.train.load_checkpoint(prefix).get_variable_to_dtype_map()
    if _MASK not in types:
        raise ValueError(f"{export} lacks the mask of items on offer; export the run again")
    whole = {"tensor_names": list(types), "shape_and_slices": [""] * len(types)}
    values = dict(zip(types, tf.raw_ops.RestoreV2(prefix=prefix, dtypes=list(types.values()), **whole), strict=True))
    earlier: np.ndarray = values[_MASK].numpy()
    values[_MASK] = tf.constant(is_offered)
    os.makedirs(os.path.dirname(output), exist_ok=True)
    tf.raw_ops.SaveV2(prefix=output, tensors=list(values.values()), **whole)
    return earlier


@contextmanager
def _local_variables(export: str) -> Iterator[str]:
    """Yields the prefix of an export's checkpoint on the local disk."""
    if storage.is_local(export):
        yield os.path.join(storage.local_path(export), layout.VARIABLES)
        return
    folder = os.path.dirname(layout.VARIABLES)
    with tempfile.TemporaryDirectory(prefix="cartwheel-") as scratch:
        for name in storage.list_files(join(export, folder)):
            _copy(join(export, folder, name), os.path.join(scratch, folder, name))
        yield os.path.join(scratch, layout.VARIABLES)


def _copy(uri: str, path: str) -> None:
    """Copies a file to a local path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with storage.open_binary(uri) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
