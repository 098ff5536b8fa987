"""Chooses the items that may be recommended, by availability, denied ids and categories.

Shapes: I items of a vocabulary, F rows of a table of availability and categories.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.storage.paths import join
from contract.catalogue import read_columns
from contract.item_facts import ITEM_FACTS_SCHEMA
from contract.schema import Vocabulary
from trainer.data.dataset import Dataset
from trainer.data.id_files import read_ids

log = logging.getLogger(__name__)

_EXAMPLES = 3
_FEWER_EXCLUDED = {
    "unavailable": "correct the availability in the table, or use --include-unavailable",
    "denied": "shorten --deny",
    "category": "change --only-category or --without-category",
}
"""What to do if items are excluded for a reason."""


@dataclass(frozen=True, kw_only=True)
class OfferRules:
    """Rules for the items on offer; the default excludes only items known to be unavailable."""

    include_unavailable: bool = False
    """Whether unavailable items are on offer too."""
    denied: tuple[str, ...] = ()
    """Ids of items that are not on offer."""
    only_categories: tuple[str, ...] = ()
    """If not empty, only items in these categories, or in categories below them, are on offer."""
    without_categories: tuple[str, ...] = ()
    """Items in these categories, or in categories below them, are not on offer."""


@dataclass(frozen=True)
class Offer:
    """The items that may be recommended."""

    is_offered: np.ndarray
    """[I] bool: whether each item may be recommended; at least one is True."""
    excluded: Mapping[str, int]
    """Number of items that are not on offer, by reason: `unavailable`, `denied` or `category`. An item
    with several reasons is counted only for the first one."""

    def to_json(self) -> dict[str, Any]:
        """Returns the number of items on offer, and the number of excluded items by reason."""
        return {"offered": int(self.is_offered.sum()), "excluded": dict(self.excluded)}


def make_rules(
    *,
    include_unavailable: bool = False,
    deny: str | None = None,
    only_categories: Sequence[str] = (),
    without_categories: Sequence[str] = (),
) -> OfferRules:
    """Makes rules from command-line flags; `deny` is a file with one item id per line.

    Raises:
      ValueError: the file does not exist, starts with a header, or is not text.
    """
    return OfferRules(
        include_unavailable=include_unavailable,
        denied=tuple(read_ids(deny, "--deny")) if deny else (),
        only_categories=tuple(only_categories),
        without_categories=tuple(without_categories),
    )


def dataset_offer(dataset: Dataset, rules: OfferRules | None = None) -> Offer:
    """Finds the items on offer from the dataset's catalogue, which describes them as of the end of the training split.

    Raises:
      ValueError: see `find_offer`.
    """
    return find_offer(dataset.vocabulary(Vocabulary.ITEMS), read_item_facts(dataset), rules or OfferRules())


def available_items(dataset: Dataset) -> np.ndarray | None:
    """[I] bool: False for items known to be unavailable; None if no item is known to be unavailable."""
    available = _to_numpy(dataset.catalogue["is_available"].combine_chunks().fill_null(True))
    return None if available.all() else available


def read_item_facts(dataset: Dataset) -> pa.Table:
    """Reads the availability and the categories of all items, as a table with the schema `ITEM_FACTS_SCHEMA`."""
    names = ("item_id", "is_available", "category_id", "category_path")
    rows = read_columns([join(dataset.root, name) for name in dataset.manifest.catalogue_files], names)
    index = rows["category_path"].combine_chunks()
    known = dataset.vocabulary(Vocabulary.CATEGORIES)
    # indices after the vocabulary are those of rare categories
    category = pa.array(known, pa.string()).take(
        pc.if_else(pc.less(index.flatten(), len(known)), index.flatten(), None)
    )
    paths = pa.ListArray.from_arrays(index.offsets, category)
    return pa.table([*(rows[name] for name in names[:-1]), paths], schema=ITEM_FACTS_SCHEMA)


def find_offer(items: Sequence[str], facts: pa.Table, rules: OfferRules) -> Offer:
    """Finds the items on offer.

    Warns about denied ids that are not in `items`. Warns about items that `facts` lacks, and treats them as available.

    Args:
      items: [I] ids.
      facts: table of the items' availability and categories, with the schema `ITEM_FACTS_SCHEMA`.

    Raises:
      ValueError: `facts` has none of the items, a category of the rules has no items, or no item is on offer.
    """
    ids = pa.array(items, pa.string())
    row = pc.index_in(ids, value_set=facts["item_id"].combine_chunks())  # [I], null: no facts
    _check_join(ids, row, facts)
    _check_denied(ids, rules.denied)
    outside = np.zeros(len(items), bool)
    if rules.only_categories:
        outside |= ~_take(_in_categories(facts, rules.only_categories, "only"), row, default=False)
    if rules.without_categories:
        outside |= _take(_in_categories(facts, rules.without_categories, "without"), row, default=False)
    available = _take(facts["is_available"].combine_chunks(), row, default=True)
    reasons = {
        "unavailable": np.full(len(items), not rules.include_unavailable) & ~available,
        "denied": _to_numpy(pc.is_in(ids, value_set=pa.array(rules.denied, pa.string()))),
        "category": outside,
    }
    is_offered, excluded = np.ones(len(items), bool), {}
    for reason, is_excluded in reasons.items():
        excluded[reason] = int((is_offered & is_excluded).sum())
        is_offered &= ~is_excluded
    if not is_offered.any():
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in excluded.items() if count)
        advice = "; ".join(_FEWER_EXCLUDED[reason] for reason, count in excluded.items() if count)
        raise ValueError(f"no item is left to recommend (excluded: {counts}); {advice}")
    return Offer(is_offered, excluded)


def _check_join(ids: pa.Array, row: pa.Array, facts: pa.Table) -> None:
    """Warns if the table `facts` lacks some items; raises ValueError if it lacks all.

    `row`: [I] index of each item in `facts`; null: `facts` lacks it.
    """
    if not row.null_count:
        return
    message = (
        f"{row.null_count:,} of the {len(ids):,} items of the model are not in the table of {len(facts):,} items; ids "
        f"of the model: {_examples(ids.filter(row.is_null()))}; ids of the table: {_examples(facts['item_id'])}"
    )
    if row.null_count == len(ids):
        raise ValueError(f"{message}; the ids in the table must be those that the model was trained with")
    log.warning("%s; the missing items are treated as available", message)


def _check_denied(ids: pa.Array, denied: Sequence[str]) -> None:
    """Warns about ids in `denied` that are not in `ids`."""
    given = pa.array(denied, pa.string())
    unknown = given.filter(pc.invert(pc.is_in(given, value_set=ids)))
    if len(unknown):
        log.warning(
            "%s of the %s denied ids are not items of the model and have no effect, such as %s",
            f"{len(unknown):,}",
            f"{len(given):,}",
            _examples(unknown),
        )


def _in_categories(facts: pa.Table, names: Sequence[str], flag: str) -> pa.Array:
    """[F] bool: whether each of the F items in `facts` is in a category in `names`, or in a subcategory of one.

    Raises:
      ValueError: a category has no items; the message names the command-line flag, `flag` + "-category".
    """
    leaf, paths = facts["category_id"].combine_chunks(), facts["category_path"].combine_chunks()
    above, owner = pc.list_flatten(paths), pc.list_parent_indices(paths).to_numpy()
    found = pa.concat_arrays([leaf, above]).unique().drop_null()
    unknown = [name for name in names if not pc.index(found, pa.scalar(name)).as_py() >= 0]
    if unknown:
        close = difflib.get_close_matches(unknown[0], found.to_pylist(), n=_EXAMPLES, cutoff=0.5)
        examples = _examples(pa.array(close, pa.string()) if close else found)
        advice = (
            f"use a category with items, such as {examples}"
            if examples
            else "remove the flag, because no item has a category"
        )
        raise ValueError(f"--{flag}-category: no item is in the category {' or '.join(map(repr, unknown))}; {advice}")
    chosen = pa.array(names, pa.string())
    is_inside = _to_numpy(pc.is_in(leaf, value_set=chosen))
    is_inside[owner[_to_numpy(pc.is_in(above, value_set=chosen))]] = True
    return pa.array(is_inside)


def _take(values: pa.Array, row: pa.Array, *, default: bool) -> np.ndarray:
    """[I] bool: the values [F] at the indices `row` [I]; `default` where the index or the value is null."""
    return _to_numpy(values.take(row).fill_null(default))


def _to_numpy(values: pa.Array) -> np.ndarray:
    """Copies booleans to a writable array."""
    return np.array(values.to_numpy(zero_copy_only=False), bool)


def _examples(ids: pa.Array | pa.ChunkedArray) -> str:
    return ", ".join(repr(value) for value in ids[:_EXAMPLES].to_pylist())
