"""The similarity of items by their vectors.

Shapes: B items, I items of the vocabulary, D embedding.
"""

import tensorflow as tf


def cosines(vectors: tf.Tensor | tf.Variable, item: tf.Tensor) -> tf.Tensor:
    """Returns [B, I] float32: the cosine of each item in `item` with every item; 0 if a vector is all zeros.

    Args:
      vectors: [I, D] vectors of all items.
      item: [B] indices of the items to compare with all items.
    """
    selected = tf.gather(vectors, item)
    # dividing the products by the norms avoids [I, D] normalised vectors for every request
    lengths = tf.norm(selected, axis=1)[:, None] * tf.norm(vectors, axis=1)
    return tf.math.divide_no_nan(tf.matmul(selected, vectors, transpose_b=True), lengths)
