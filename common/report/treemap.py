"""Layout of a treemap. Areas are proportional to values and as square as possible."""

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle, positioned by its lower left corner."""

    x: float
    y: float
    width: float
    height: float


def squarify(values: Sequence[float], box: Box) -> list[Box]:
    """Divides a box into one rectangle per value, in order; areas are proportional to values.

    Squarified treemap (Bruls, Huizing and van Wijk, 2000). The values are above 0, in descending order.
    """
    scale = box.width * box.height / sum(values) if values else 0.0
    areas = [value * scale for value in values]
    boxes: list[Box] = []
    while areas:
        side = min(box.width, box.height)
        count = _count_in_row(areas, side)
        row, areas = areas[:count], areas[count:]
        placed, box = _lay_row(row, box)
        boxes += placed
    return boxes


def _count_in_row(areas: Sequence[float], side: float) -> int:
    """Returns how many areas form the next row along a side of length `side`.

    The row ends before an area that would worsen the row's worst aspect ratio.
    """
    for count in range(1, len(areas)):
        if _worst_aspect_ratio(areas[: count + 1], side) > _worst_aspect_ratio(areas[:count], side):
            return count
    return len(areas)


def _worst_aspect_ratio(areas: Sequence[float], side: float) -> float:
    """Returns the worst aspect ratio in one row along a side of length `side`."""
    total = sum(areas)
    return max(max(side**2 * area / total**2, total**2 / (side**2 * area)) for area in areas)


def _lay_row(areas: Sequence[float], box: Box) -> tuple[list[Box], Box]:
    """Places `areas` as rectangles along the box's shorter side; returns the rectangles and the remaining box."""
    is_upright = box.width >= box.height
    side = box.height if is_upright else box.width
    depth = sum(areas) / side
    placed, at = [], 0.0
    for area in areas:
        length = area / depth
        placed.append(Box(box.x, box.y + at, depth, length) if is_upright else Box(box.x + at, box.y, length, depth))
        at += length
    if is_upright:
        return placed, Box(box.x + depth, box.y, box.width - depth, box.height)
    return placed, Box(box.x, box.y + depth, box.width, box.height - depth)
