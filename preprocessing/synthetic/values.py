"""Property values as the shop writes them: words are numbers, numbers are `n552.000`.

Shapes: N values.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUM_WORDS = 1_299_709  # a prime; words are the numbers below it
_STYLE_WORDS = 12  # for each shelf


@dataclass(frozen=True)
class PropertyRows:
    """Columns [R]: the item's place in its chunk, the snapshot's number, the property's name and its value."""

    item: np.ndarray
    snapshot: np.ndarray
    name: pa.Array
    value: pa.Array


def format_words(words: np.ndarray) -> pa.Array:
    """[N] strings like `1116713`."""
    return pc.cast(pa.array(words), pa.string())


def format_numbers(numbers: np.ndarray) -> pa.Array:
    """[N] strings like `n552.000`."""
    return pc.binary_join_element_wise("n", format_words(numbers), ".000", "")


def mix(salt: int | np.ndarray, *parts: np.ndarray) -> np.ndarray:
    """[N] words, the same for the same salt and parts, as good as random otherwise."""
    word = np.asarray(salt) * 7_919 + 104_729
    for part in parts:
        word = (word * 48_271 + part * 69_621 + 12_820_163) % NUM_WORDS
    return word


def style_word(salt: int | np.ndarray, shelf: np.ndarray, style: np.ndarray) -> np.ndarray:
    """[N] the word for a style in [0, 1] on a shelf: items of like style share it."""
    return mix(salt, shelf, (style * _STYLE_WORDS).astype(np.int64))
