"""Property values in Retailrocket's format: words such as `1116713`, and numbers such as `n552.000`.

Shapes: N values.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUM_WORDS = 1_299_709  # a prime; words are the numbers below it
_STYLE_WORDS = 12  # per shelf


@dataclass(frozen=True)
class PropertyRows:
    """Rows of the property files, as columns [R]."""

    item: np.ndarray
    """Index of the row's item in its chunk."""

    snapshot: np.ndarray
    """Index of the weekly snapshot that contains the row."""

    name: pa.Array
    """Name of the row's property."""

    value: pa.Array
    """Value of the property, as text."""


def format_words(words: np.ndarray) -> pa.Array:
    """Formats integers [N] as decimal strings, the form of hashed words in Retailrocket's data."""
    return pc.cast(pa.array(words), pa.string())


def format_numbers(numbers: np.ndarray) -> pa.Array:
    """Formats integers [N] like the numbers in Retailrocket's data, such as `n552.000`."""
    return pc.binary_join_element_wise("n", format_words(numbers), ".000", "")


def mix(salt: int | np.ndarray, *parts: np.ndarray) -> np.ndarray:
    """Returns a pseudo-random integer from 0 to NUM_WORDS - 1 for each of N rows.

    The result depends only on `salt` and on `parts`, which are integers [N].
    """
    word = np.asarray(salt) * 7_919 + 104_729
    for part in parts:
        word = (word * 48_271 + part * 69_621 + 12_820_163) % NUM_WORDS
    return word


def style_word(salt: int | np.ndarray, shelf: np.ndarray, style: np.ndarray) -> np.ndarray:
    """Returns a word for each of the N styles: an integer from 0 to NUM_WORDS - 1.

    On each shelf, similar styles get the same word. Another `salt` gives other words. `style` is in [0, 1].
    """
    return mix(salt, shelf, (style * _STYLE_WORDS).astype(np.int64))
