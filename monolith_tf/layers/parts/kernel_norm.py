"""Weight normalization of kernels (Salimans and Kingma, arXiv:1602.07868)."""

import tensorflow as tf

_MIN_SQUARED_NORM = 1e-6


def column_norms(kernel: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm of every column, `[rows, units]` to `[units]`."""
    return tf.sqrt(tf.reduce_sum(tf.square(kernel), axis=0))


def normalize(kernel: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
    """Returns the kernel with column `j` scaled to the norm `norm[j]`.

    A squared norm below 1e-6 counts as 1e-6, so a zero column stays zero.

    Args:
      kernel: `[rows, units]`, float32.
      norm: `[units]`, float32.
    """
    squared = tf.reduce_sum(tf.square(kernel), axis=0)  # [units]
    return kernel * (norm * tf.math.rsqrt(tf.maximum(squared, _MIN_SQUARED_NORM)))
