"""Draws a title for each listed item, such as `Blue canvas sneakers`, so that people can judge recommendations.

A root of the category tree is a department. A shelf (a category with items) sells one product of its department. The
look in the title follows the item's style. Thus a visitor who likes one style sees one colour and its neighbours.

Shapes: S shelves, L listed items.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.synthetic.catalogue import Catalogue
from preprocessing.synthetic.departments import DEPARTMENTS, NUM_LOOKS, NUM_MATERIALS, SERIES
from preprocessing.synthetic.draws import position_in_group
from preprocessing.synthetic.tree import Tree

_SERIES = pa.array(SERIES)
_LOOKS = pa.array([look for department in DEPARTMENTS for look in department.looks])
_MATERIALS = pa.array([material for department in DEPARTMENTS for material in department.materials])


@dataclass(frozen=True)
class _Products:
    department: np.ndarray
    """[S] index in `DEPARTMENTS`."""

    name: pa.Array
    """[S] name of the product, such as `sneakers`. Several shelves may sell the same product."""


def draw_titles(tree: Tree, catalogue: Catalogue, random: np.random.Generator) -> pa.Array:
    """Draws a title per listed item, [L]. Titles repeat only if over 3,200 items have the same product and look."""
    products = _assign_products(tree, random)
    department = products.department[catalogue.shelf]
    look = np.minimum((catalogue.style * NUM_LOOKS).astype(np.int64), NUM_LOOKS - 1)
    name = products.name.dictionary_encode()
    group = name.indices.to_numpy()[catalogue.shelf].astype(np.int64) * NUM_LOOKS + look
    number = _number_in_group(group)
    material, series = _draw_materials_and_series(group, number, random)
    return pc.binary_join_element_wise(
        _LOOKS.take(pa.array(department * NUM_LOOKS + look)),
        _MATERIALS.take(pa.array(department * NUM_MATERIALS + material)),
        products.name.take(pa.array(catalogue.shelf)),
        _SERIES.take(pa.array(series, mask=number < NUM_MATERIALS)),
        " ",
        null_handling="skip",
    )


def _assign_products(tree: Tree, random: np.random.Generator) -> _Products:
    """Assigns a product name to each shelf. Shelves below one root category sell the products of one department."""
    departments = random.permutation(len(DEPARTMENTS))
    paths = [_path_from_root(tree.parent, node) for node in tree.shelf_node.tolist()]
    department = departments[np.array([path[0] for path in paths]) % len(departments)]
    num_assigned = np.zeros(len(departments), np.int64)
    names = [""] * len(paths)
    for shelf in sorted(range(len(paths)), key=paths.__getitem__):
        chosen = DEPARTMENTS[department[shelf]]
        names[shelf] = chosen.product(int(num_assigned[department[shelf]]) % chosen.num_products)
        num_assigned[department[shelf]] += 1
    return _Products(department, pa.array(names))


def _path_from_root(parent: np.ndarray, node: int) -> list[int]:
    path = [node]
    while (above := int(parent[path[-1]])) >= 0:
        path.append(above)
    return path[::-1]


def _draw_materials_and_series(
    group: np.ndarray, number: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the material and the series (an invented word) of each item. Returns two arrays of indices, [N] each.

    Items of the same `group` have the same product and look. `number` is an item's position in its group. Eight
    consecutive items of a group have the same series and different materials.
    """
    first_material, first_series = random.integers(0, [[NUM_MATERIALS], [len(_SERIES)]], (2, group.max(initial=0) + 1))
    material = (first_material[group] + number) % NUM_MATERIALS
    return material, (first_series[group] + number // NUM_MATERIALS) % len(_SERIES)


def _number_in_group(group: np.ndarray) -> np.ndarray:
    number = np.empty(len(group), np.int64)
    number[np.argsort(group, kind="stable")] = position_in_group(np.bincount(group))
    return number
