"""Generates a shop of any size that resembles Retailrocket's; it depends only on the seed. Visitors have hidden tastes.

The data flow, which `shop` runs: `tree` and `visitors` (how active each visitor is) → `journeys` (the order of their
events) → `clock` (the times) → `tastes` (the category and style of each interest) → `assortment` (the items) →
`matching` (the item of each interest) → `catalogue`, `properties` and `titles` (weekly item data) → `files`.
"""

from preprocessing.synthetic.files import synthesize
from preprocessing.synthetic.scale import SynthesisConfig

__all__ = ["SynthesisConfig", "synthesize"]
