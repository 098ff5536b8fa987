import numpy as np
import scipy.sparse as sp

from trainer.models import item_products
from trainer.models.item_products import largest, largest_products


def matrix(*rows):
    return sp.csr_matrix(np.array(rows, np.float32))


def test_only_the_largest_of_a_row_are_kept_and_ties_go_to_the_lower_column():
    kept = largest(matrix([3, 1, 2, 2], [1, 0, 0, 0], [1, 1, 1, 1]), 2).toarray()
    np.testing.assert_array_equal(kept, [[3, 0, 2, 0], [1, 0, 0, 0], [1, 1, 0, 0]])


def test_the_largest_do_not_depend_on_the_order_in_which_entries_are_stored():
    # as a product of sparse matrices has them: columns 3, 1, 0, 2 with 2, 1, 2, 2
    unsorted = sp.csr_matrix((np.array([2, 1, 2, 2], np.float32), np.array([3, 1, 0, 2]), np.array([0, 4])), (1, 4))
    kept = largest(unsorted, 2)
    assert (kept.indices.tolist(), kept.data.tolist()) == ([0, 2], [2, 2])


def test_entries_are_rescaled_before_the_largest_are_kept():
    def halve_the_first_column(product, rows):
        product.data[product.indices == 0] /= 2

    # [3, 2] @ [[1, 1], [1, 0]] = [5, 3]; halved, the first column has 2.5
    (product,) = largest_products(matrix([3, 2]), matrix([1, 1], [1, 0]), 1, halve_the_first_column)
    np.testing.assert_array_equal(product.toarray(), [[0, 3]])


def test_blocks_of_the_product_are_bounded_although_the_whole_product_is_not(monkeypatch):
    """One item is in every timeline. So its row of the product has entries for all items, and so has its column."""
    dense = np.zeros((400, 400), np.float32)
    dense[np.arange(400), np.arange(400)] = dense[:, 0] = 1
    sizes = []

    def count(product, rows):
        sizes.append(product.nnz)

    monkeypatch.setattr(item_products, "_BLOCK_ENTRIES", 500)
    right = sp.csr_matrix(dense)
    blocks = list(largest_products(right.T.tocsr(), right, 3, count))
    assert max(sizes) <= 500
    assert sum(block.shape[0] for block in blocks) == 400
    assert max(np.diff(block.indptr).max() for block in blocks) == 3
