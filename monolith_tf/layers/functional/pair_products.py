"""Sums over products of pairs of rows, a block of columns at a time.

Arrays are `[blocks, rows, columns]`. All products of one block are in memory at once,
but never those of two blocks, forward or backward.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from monolith_tf.types import Nest
from monolith_tf.types import Tensor


def contract(kernel: tf.Tensor, x: tf.Tensor, y: tf.Tensor | None = None) -> tf.Tensor:
    """Returns `sum_{h, j} kernel[h * fields + j, o] * x[., h, .] * y[., j, .]`.

    Args:
      kernel: `[maps * fields, units]`.
      x: `[blocks, maps, columns]`.
      y: `[blocks, fields, columns]`; None means `x`, and then every pair of rows is
        multiplied once.

    Returns:
      `[blocks, units, columns]`.
    """
    if y is None:
        transposed = tf.transpose(_fold(kernel, x.shape[1]))
        return _each_block(lambda a: transposed @ _pairs(a), x)
    transposed = tf.transpose(kernel)
    return _each_block(lambda a, b: transposed @ _products(a, b), x, y)


def contract_gradients(
    kernel: tf.Tensor, upstream: tf.Tensor, x: tf.Tensor, y: tf.Tensor | None = None
) -> tuple[tf.Tensor, ...]:
    """Returns the gradients of `contract` by `x`, by `y` if set, and by `kernel`.

    Args:
      kernel: As in `contract`.
      upstream: `[blocks, units, columns]`.
      x: As in `contract`.
      y: As in `contract`.
    """
    if y is None:
        return _symmetric_gradients(kernel, upstream, x)
    maps, fields = x.shape[1], y.shape[1]

    def one(g: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tuple[tf.Tensor, ...]:
        v = tf.reshape(kernel @ g, [maps, fields, -1])
        da = tf.reduce_sum(v * b[tf.newaxis], axis=1)
        db = tf.reduce_sum(v * a[:, tf.newaxis], axis=0)
        return da, db, tf.matmul(_products(a, b), g, transpose_b=True)

    return _sum_last(one, kernel, upstream, x, y)


def _symmetric_gradients(
    kernel: tf.Tensor, upstream: tf.Tensor, x: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    fields = x.shape[1]
    shifts = range(fields // 2 + 1)
    folded = _fold(kernel, fields)

    def one(g: tf.Tensor, a: tf.Tensor) -> tuple[tf.Tensor, ...]:
        v = tf.reshape(folded @ g, [len(shifts), fields, -1])
        twice = tf.concat([a, a], axis=0)
        # Two separate sums: in a single one, the compiler repeats most of the work.
        da = sum(v[shift] * twice[shift : shift + fields] for shift in shifts)
        to_right = v * a[tf.newaxis]
        da += sum(_rotate(to_right[shift], shift) for shift in shifts)
        return da, tf.matmul(_pairs(a), g, transpose_b=True)

    of_x, of_folded = _sum_last(one, folded, upstream, x)
    return of_x, tf.gather(of_folded, _pair_of(fields))


def _products(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns `[maps * fields, columns]`."""
    products = a[:, tf.newaxis] * b[tf.newaxis]
    return tf.reshape(products, [a.shape[0] * b.shape[0], -1])


# Pairs of rows are (i, i + shift modulo fields) with shift = 0 ... fields // 2: every
# pair once, except that those of the last shift come twice if the number of fields is
# even.


def _pairs(a: tf.Tensor) -> tf.Tensor:
    """Returns the products of all pairs, `[pairs, columns]`."""
    left, right = _indices(a.shape[0])
    return tf.gather(a, left) * tf.gather(a, right)


def _indices(fields: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns both rows of every pair."""
    shift, left = np.divmod(np.arange((fields // 2 + 1) * fields), fields)
    return left, (left + shift) % fields


def _pair_of(fields: int) -> np.ndarray:
    """Returns for every `i * fields + j` the index of its pair."""
    left, right = _indices(fields)
    places = np.zeros([fields, fields], np.int64)
    places[left, right] = places[right, left] = np.arange(left.size)
    return places.reshape(-1)


def _fold(kernel: tf.Tensor, fields: int) -> tf.Tensor:
    """Adds the entries (i, j) and (j, i) of every pair, `[pairs, units]`."""
    left, right = _indices(fields)
    shift = (right - left) % fields
    share = np.where((shift == 0) | (2 * shift == fields), 0.5, 1.0)[:, np.newaxis]
    both = tf.gather(kernel, left * fields + right)
    both += tf.gather(kernel, right * fields + left)
    return both * tf.constant(share, kernel.dtype)


def _rotate(a: tf.Tensor, shift: int) -> tf.Tensor:
    """Moves row `i` to row `i + shift`."""
    return tf.concat([a[a.shape[0] - shift :], a[: a.shape[0] - shift]], axis=0)


def _each_block(function: Callable[..., tf.Tensor], *arrays: tf.Tensor) -> tf.Tensor:
    """Applies a function to every block and stacks the results."""
    blocks = tf.shape(arrays[0])[0]

    def body(i: tf.Tensor, results: Nest) -> list[Tensor]:
        return [i + 1, results.write(i, function(*(array[i] for array in arrays)))]

    _, results = tf.while_loop(
        lambda i, _: i < blocks,
        body,
        [0, tf.TensorArray(arrays[0].dtype, blocks)],
        maximum_iterations=blocks,
    )
    return results.stack()


def _sum_last(
    function: Callable[..., tuple[tf.Tensor, ...]],
    like: tf.Tensor,
    *arrays: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Applies a function to every block; stacks its results, but sums the last one.

    The last result has the shape of `like`.
    """
    blocks = tf.shape(arrays[0])[0]
    stacks = [tf.TensorArray(like.dtype, blocks) for _ in arrays[1:]]

    def body(i: tf.Tensor, total: tf.Tensor, *stacks: Tensor) -> list[Tensor]:
        *found, last = function(*(array[i] for array in arrays))
        written = [a.write(i, f) for a, f in zip(stacks, found, strict=True)]
        return [i + 1, total + last, *written]

    _, total, *stacks = tf.while_loop(
        lambda i, *_: i < blocks,
        body,
        [0, tf.zeros_like(like), *stacks],
        maximum_iterations=blocks,
    )
    return *(stack.stack() for stack in stacks), total
