"""Generates a shop of any size that resembles Retailrocket's. The same size and seed give the same shop.

The events follow hidden tastes of the visitors. A shelf is a category with items. An interest is a pair of a visitor
and an item. A wish is the shelf and the style of the item that an interest looks for.

The data flow, which `shop` runs: `tree` and `visitors` (how active each visitor is) → `journeys` (the order of their
events) → `clock` (the times) → `tastes` (the category and style of each interest) → `assortment` (the items) →
`matching` (the item of each interest) → `catalogue`, `properties` and `titles` (weekly item data) → `files`.
"""

from preprocessing.synthetic.files import synthesize
from preprocessing.synthetic.scale import SynthesisConfig

__all__ = ["SynthesisConfig", "synthesize"]
