"""Computes normally distributed table rows that depend only on the seed, the table's name and the row number.

So each replica computes only the rows that it owns, and the values are the same for any number of replicas.

Shapes: n rows, D columns, P pairs of columns.
"""

import numpy as np

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)


def normal_rows(rows: np.ndarray, dim: int, *, name: str, seed: int, stddev: float) -> np.ndarray:
    """Returns normally distributed float32 values [n, D] that depend only on (seed, name, row).

    Args:
      rows: [n] indices of the rows.
      dim: number of entries of a row, D.
    """
    pairs = -(-dim // 2)
    start = np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)[0]
    position = rows.astype(np.uint64)[:, None] * np.uint64(pairs) + np.arange(pairs, dtype=np.uint64)
    bits = _mix(start + (position + np.uint64(1)) * _INCREMENT).view(np.uint32).reshape(len(rows), pairs, 2)
    # two normal numbers from two uniform ones (Box and Muller, 1958); `uniform` is above 0, because its log is taken
    uniform = ((bits[..., 0] >> np.uint32(8)).astype(np.float32) + np.float32(1)) * np.float32(2**-24)
    angle = bits[..., 1].astype(np.float32) * np.float32(2 * np.pi * 2**-32)
    radius = np.float32(stddev) * np.sqrt(np.float32(-2) * np.log(uniform))
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    return values.reshape(len(rows), -1)[:, :dim]


def _mix(state: np.ndarray) -> np.ndarray:
    """Turns each state into a random number, in place (SplitMix64; Steele, Lea and Flood, OOPSLA 2014)."""
    for shift, factor in _ROUNDS:
        state ^= state >> shift
        state *= factor
    state ^= state >> _LAST_SHIFT
    return state
