"""A Retailrocket-like shop of any size, deterministic by seed, with hidden tastes.

The order of the data: `tree` and `visitors` (who does how much) → `journeys` (in what order) → `clock` (when) →
`tastes` (in which category, to what style) → `assortment` (which items there are) → `matching` (which item it was) →
`catalogue` and `properties` (what the shop tells of its items, week by week) → `files`. `shop` tells the story.
"""

from preprocessing.synthetic.files import synthesize
from preprocessing.synthetic.scale import SynthesisConfig

__all__ = ["SynthesisConfig", "synthesize"]
