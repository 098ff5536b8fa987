"""The refresh job: without training, publishes a copy of an export with an updated offer and updated trends.

The mask of the items on offer and the trends of the items are variables of the SavedModel. Only the values of these
variables change; the graph and all weights are copied. The mask is computed from a table of items, the trends from the
events of a newer dataset. Without a newer dataset, the trends stay as they are.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from common import storage
from common.storage.paths import join
from contract.schema import Vocabulary
from trainer.data.dataset import Dataset, read_vocabulary
from trainer.data.offer import OfferRules, find_offer
from trainer.data.trend import ItemEvents, Trends, advance_trends, read_item_events
from trainer.serving import layout

log = logging.getLogger(__name__)

_MASK = "is_offered/.ATTRIBUTES/VARIABLE_VALUE"
"""Key of the mask in the checkpoint of the SavedModel: an attribute of `ServingModel`."""
_TREND = {name: f"_model/_{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in ("moment_ms", "trend", "counts")}
"""Keys of the variables of the trend: attributes of `BlendInference`."""
_FINGERPRINT = "fingerprint.pb"
"""Optional file with a hash of the checkpoint; it is dropped, because the checkpoint changes."""


def refresh(
    *, export: str, output: str, facts: pa.Table, rules: OfferRules | None = None, newer: Dataset | None = None
) -> dict[str, Any]:
    """Publishes a copy of an export with a new offer and new item trends.

    For trends, see `data.trend`.

    Args:
      export: directory or URI that `export` or `refresh` published; it is not changed.
      output: directory or URI, which must not exist.
      facts: table of `ITEM_FACTS_SCHEMA`: availability and categories of the items.
      rules: rules that select the items on offer; None: all items that `facts` does not mark as unavailable.
      newer: a dataset with newer events, which are added to the trends; None: the trends are not changed.

    Returns:
      JSON values: the arguments `export` and `output`, the name of the `model`, the number of `items` of the catalogue,
      the numbers of items on `offer` and of excluded items by reason, the numbers of items `added` to and `removed`
      from the offer, and the number of `trend_events` added to the trends.

    Raises:
      FileExistsError: `output` exists.
      ValueError: `export` is damaged or was not written by this version of Cartwheel, or the rules do not fit the
        items; see `find_offer`.
    """
    storage.refuse_existing(output, marker=layout.MARKER)
    layout.check_export(export)
    info = layout.read_info(export)
    items = read_vocabulary(join(export, layout.ITEMS))
    offer = find_offer(items, facts, rules or OfferRules())
    events = None if newer is None else _events_of(newer, items)
    with storage.publish_directory(output, marker=layout.MARKER) as staging:
        for name in storage.list_files(export):
            _copy(join(export, name), os.path.join(staging, name))
        layout.check_files(staging, info["files"], export)
        values = _read_variables(os.path.join(staging, layout.VARIABLES), export)
        earlier = values[_MASK].numpy()
        values[_MASK] = tf.constant(offer.is_offered)
        num_newer = _advance_trends(values, info["half_lives_days"], events)
        _replace_variables(values, staging)
        layout.write_info(staging, info | {"offer": offer.to_json()})
    added, removed = int((offer.is_offered & ~earlier).sum()), int((earlier & ~offer.is_offered).sum())
    message = "%s: %d of %d items are on offer; %d were added to the offer and %d removed from it"
    log.info(message, output, offer.is_offered.sum(), len(earlier), added, removed)
    return {
        "export": export,
        "output": output,
        "model": info["name"],
        "items": len(earlier),
        "offer": offer.to_json(),
        "added": added,
        "removed": removed,
        "trend_events": num_newer,
    }


def _events_of(dataset: Dataset, items: list[str]) -> ItemEvents:
    """Reads the events of `items`; the result identifies an item by its index in `items`."""
    events = read_item_events(dataset)
    index = pc.index_in(pa.array(dataset.vocabulary(Vocabulary.ITEMS), pa.string()), pa.array(items, pa.string()))
    item = index.fill_null(-1).to_numpy(zero_copy_only=False)[events.item]
    return ItemEvents(events.timestamp_ms[item >= 0], item[item >= 0].astype(np.int64), len(items))


def _advance_trends(values: dict[str, tf.Tensor], half_lives_days: Sequence[float], events: ItemEvents | None) -> int:
    """Adds newer events to the item trends in `values` (see `data.trend`); returns the number of added events.

    Args:
      values: variables of the SavedModel by name.
      half_lives_days: half-life of each trend.
    """
    if not half_lives_days or events is None:
        return 0
    moment_ms, counts = values[_TREND["moment_ms"]].numpy(), values[_TREND["counts"]].numpy()
    newer = [
        advance_trends(Trends(days, moment_ms[-1:], recent[None], counts[-1:]), events)
        for days, recent in zip(half_lives_days, counts[:-1], strict=True)
    ]
    values[_TREND["moment_ms"]] = tf.constant(newer[0].moment_ms)
    values[_TREND["trend"]] = tf.constant(np.stack([each.values for each in newer]))
    values[_TREND["counts"]] = tf.constant(np.concatenate([*(each.recent for each in newer), newer[0].total]))
    return int((newer[0].total - counts[-1:]).sum(dtype=np.float64))


def _read_variables(prefix: str, export: str) -> dict[str, tf.Tensor]:
    """Reads all variables of the checkpoint at `prefix`; the keys are their names. Error messages mention `export`."""
    types = tf.train.load_checkpoint(prefix).get_variable_to_dtype_map()
    if _MASK not in types:
        raise ValueError(f"{export} lacks the mask of items on offer; export the run again")
    tensors = tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=list(types),
        shape_and_slices=[""] * len(types),
        dtypes=list(types.values()),
    )
    return dict(zip(types, tensors, strict=True))


def _replace_variables(values: dict[str, tf.Tensor], staging: str) -> None:
    """Replaces the checkpoint of the SavedModel, and removes the hash of the old checkpoint."""
    prefix = os.path.join(staging, layout.VARIABLES)
    shutil.rmtree(os.path.dirname(prefix))
    storage.remove(os.path.join(staging, _FINGERPRINT))
    os.makedirs(os.path.dirname(prefix))
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=list(values), shape_and_slices=[""] * len(values), tensors=list(values.values())
    )


def _copy(uri: str, path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with storage.open_binary(uri) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)
