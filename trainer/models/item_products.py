"""Multiplies sparse matrices, and keeps only the largest entries of each row of the product.

The whole product may not fit into memory, so it is computed in blocks of rows.

Shapes: N rows, T timelines, I items.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import scipy.sparse as sp

_BLOCK_ENTRIES = 4_000_000  # entries of a block of the product before it is pruned: about 50 MB
_THREADS = 2  # blocks that are computed at once; SciPy and NumPy compute without the lock of the interpreter

Rescale = Callable[[sp.csr_matrix, slice], None]
"""Function of a block of the product and the slice of its rows; changes the entries of the block in place."""


def largest_products(
    left: sp.csr_matrix, right: sp.csr_matrix, count: int, rescale: Rescale
) -> Iterator[sp.csr_matrix]:
    """Yields the largest entries in each row of `left` @ `right`, in blocks of rows.

    Args:
      left: [N, T].
      right: [T, I].
      count: number of entries to keep in each row. Of equal entries, those in lower columns are kept.
      rescale: changes each block of the product before the largest entries are selected; called from several threads.
    """

    def multiply(block: slice) -> sp.csr_matrix:
        product = left[block] @ right
        rescale(product, block)
        return largest(product, count)

    with ThreadPoolExecutor(_THREADS) as pool:
        computed = deque[Future[sp.csr_matrix]]()
        for block in _row_blocks(left, right):
            if len(computed) == _THREADS:
                yield computed.popleft().result()
            computed.append(pool.submit(multiply, block))
        for each in computed:
            yield each.result()


def largest(weights: sp.csr_matrix, count: int) -> sp.csr_matrix:
    """Keeps each row's `count` largest entries (float32, at least 0); of equal entries, those in lower columns."""
    lengths = np.diff(weights.indptr)
    if lengths.max(initial=0) <= count:
        weights.sort_indices()
        return weights
    row, kept_lengths = np.repeat(np.arange(len(lengths)), lengths), np.minimum(lengths, count)
    least = np.repeat(_least_kept(weights, count), lengths)
    larger, equal = np.flatnonzero(weights.data > least), np.flatnonzero(weights.data == least)
    equal = equal[np.lexsort([weights.indices[equal], row[equal]])]
    rank = np.arange(len(equal)) - np.searchsorted(row[equal], row[equal])
    num_left = kept_lengths - np.bincount(row[larger], minlength=len(lengths))
    kept = np.concatenate([larger, equal[rank < num_left[row[equal]]]])
    found = sp.csr_matrix((weights.data[kept], (row[kept], weights.indices[kept])), weights.shape)
    found.sort_indices()
    return found


def _least_kept(weights: sp.csr_matrix, count: int) -> np.ndarray:
    """[N] float32: the `count`-th largest entry of each row; -1 for rows that have at most `count` entries."""
    least = np.full(weights.shape[0], -1, np.float32)
    lengths = np.diff(weights.indptr)
    # a partial sort of each row takes a fifth of the time of sorting the entries of all rows at once
    for row in np.flatnonzero(lengths > count):
        place = lengths[row] - count
        least[row] = np.partition(weights.data[weights.indptr[row] : weights.indptr[row + 1]], place)[place]
    return least


def _row_blocks(left: sp.csr_matrix, right: sp.csr_matrix) -> Iterator[slice]:
    """Divides the rows of `left` into blocks that have at most `_BLOCK_ENTRIES` entries in `left @ right`.

    A row that has more entries is a block of its own.
    """
    # an upper bound for each row: the entries of all rows of `right` that it adds up
    bound = np.minimum(left.astype(bool) @ np.diff(right.indptr), right.shape[1])
    total = np.concatenate([[0], np.cumsum(bound)])
    begin = 0
    while begin < left.shape[0]:
        end = max(int(np.searchsorted(total, total[begin] + _BLOCK_ENTRIES, side="right")) - 1, begin + 1)
        yield slice(begin, end)
        begin = end
