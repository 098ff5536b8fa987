"""Boxes of a diagram; this file does not draw, so that models can describe themselves without importing Matplotlib."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DiagramBox:
    """A part of a model in the picture of its architecture."""

    name: str
    """Name of the part."""
    shape: str
    """Shape of the part's output or weights."""
    level: int
    """Column of the box, from the left."""
    reads: tuple[str, ...] = ()
    """Names of the parts that it reads."""
    is_trained: bool = False
    """Whether the part has weights."""
