"""Boxes of a diagram. This module does not draw, so that models can describe themselves without Matplotlib."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DiagramBox:
    """One part of a model, drawn as a box in the picture of the model's architecture."""

    name: str
    """Name of the part."""
    shape: str
    """Shape of the part's output or weights."""
    level: int
    """Column of the box; 0 is the leftmost."""
    reads: tuple[str, ...] = ()
    """Names of the parts that are inputs of this part."""
    is_trained: bool = False
    """Whether the part has weights."""
