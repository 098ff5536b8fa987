"""Weighted least squares for many vectors at once: visitor vectors given the item vectors, or the reverse.

The objective of a factorization (Hu et al., ICDM 2008; in the form of Rendle et al., RecSys 2022) is

    sum over all pairs of c (p - x·y)²  +  sum over the vectors of λ |x|²

with p = 1 and c = w + u for a pair with weight w in the data, and p = 0 and c = u for all other pairs. If all y are
fixed, each x solves (u G + Σ w y yᵀ + λ) x = Σ (w + u) y, with the Gramian G = Σ y yᵀ over all y. Tables are rotated so
that G is diagonal, which does not change the scores. Then u G + λ is inverted entry by entry for any λ. A row with L
entries gives a linear system of size L × L (Woodbury identity) or D × D, whichever is smaller. It is solved exactly, by
Cholesky decomposition.

Shapes: M rows, L entries per row, D columns of a vector.
"""

import tensorflow as tf


def solve_rows(
    vectors: tf.Tensor,
    weights: tf.Tensor,
    gramian: tf.Tensor,
    l2: tf.Tensor,
    *,
    unobserved_weight: float,
    is_long: bool,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Minimizes the objective of the module docstring over each row's vector x, for fixed vectors y.

    Args:
      vectors: [M, L, D] the vectors y of each row's entries.
      weights: [M, L] the weights w of the entries, at least 0; 0 marks padding.
      gramian: [D] the diagonal of G, the Gramian of all y; the other entries of G must be 0.
      l2: [M] the regularization λ of each row, above 0.
      unobserved_weight: u, the weight of every pair; observed pairs have w in addition.
      is_long: whether to solve linear systems of size D × D instead of L × L; faster if L > D.

    Returns:
      Two tensors: [M, D] the vectors x; [M] each row's contribution to the minimum of the objective.
    """
    is_entry = weights > 0
    confidence = tf.where(is_entry, weights + unobserved_weight, 0.0)
    inverse = 1 / (unobserved_weight * gramian + l2[:, None])  # [M, D]
    rooted = vectors * tf.sqrt(weights)[:, :, None]
    if is_long:
        right = tf.einsum("mld,ml->md", vectors, confidence)
        system = tf.matmul(rooted, rooted, transpose_a=True)
        system = tf.linalg.set_diag(system, tf.linalg.diag_part(system) + 1 / inverse)
        solved = tf.linalg.cholesky_solve(tf.linalg.cholesky(system), right[:, :, None])[:, :, 0]
    else:
        scaled = rooted * inverse[:, None, :]
        system = tf.matmul(rooted, scaled, transpose_b=True)
        system = tf.linalg.set_diag(system, tf.linalg.diag_part(system) + 1)
        right = tf.math.divide_no_nan(confidence, tf.sqrt(weights))
        solved = tf.linalg.cholesky_solve(tf.linalg.cholesky(system), right[:, :, None])
        solved = tf.matmul(scaled, solved, transpose_a=True)[:, :, 0]
    scores = tf.einsum("mld,md->ml", vectors, solved)
    # the part of the minimum is Σ (w + u) p² minus the product of right-hand side and solution
    return solved, tf.reduce_sum(confidence * (1 - scores), axis=1)


def row_l2(entries: tf.Tensor, num_others: int, *, l2: float, l2_power: float, unobserved_weight: float) -> tf.Tensor:
    """[M]: λ of each row: l2 × (entries + u × num_others) ** l2_power (Rendle et al., RecSys 2022).

    Args:
      entries: [M] number of entries of each row.
      num_others: number of items if the rows are visitors; of visitors if they are items.
      l2: λ if `l2_power` is 0.
      l2_power: how fast λ grows with the number of entries.
      unobserved_weight: u, the weight of every (visitor, item) pair.
    """
    return l2 * tf.pow(tf.cast(entries, tf.float32) + unobserved_weight * num_others, l2_power)
