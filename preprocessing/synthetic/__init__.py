"""Generates a shop of any size that resembles Retailrocket's; the same size and seed give the same shop.

Visitors have hidden tastes. A shelf is a category with items; an interest is one item of one visitor; a wish is the
shelf and the style that the item of an interest should have.

The data flow, which `shop` runs: `tree` and `visitors` (how active each visitor is) → `journeys` (the order of their
events) → `clock` (the times) → `tastes` (the category and style of each interest) → `assortment` (the items) →
`matching` (the item of each interest) → `catalogue`, `properties` and `titles` (weekly item data) → `files`.
"""

from preprocessing.synthetic.files import synthesize
from preprocessing.synthetic.scale import SynthesisConfig

__all__ = ["SynthesisConfig", "synthesize"]
