"""What Keras users give as keys, as int64."""

import tensorflow as tf

from monolith_tf.types import Tensor

_NUM_HASHES = 2**63 - 1
_EXACT_BITS = {tf.bfloat16: 8, tf.float16: 11, tf.float32: 24, tf.float64: 53}
"""Below 2 to this power a float type holds every integer."""


class Keys:
    """Turns integers or strings into int64, different integers into different ones.

    Strings are hashed to 63 bits: among n of them n (n - 1) / 2^64 pairs are expected
    to collide.

    Args:
      name: What errors call the layer.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._kind: str | None = None

    def as_int64(self, values: Tensor) -> Tensor:
        """Returns `values` as int64 of the same shape.

        Raises:
          ValueError: If strings came before integers or after them.
          TypeError: If they are neither.
          tf.errors.InvalidArgumentError: If they are floats that are no integers, or so
            large that they may be one of several.
        """
        dtype = values.dtype
        self._check_kind("strings" if dtype == tf.string else "integers")
        if dtype == tf.string:
            return tf.strings.to_hash_bucket_fast(values, _NUM_HASHES)
        if dtype == tf.uint64:
            return tf.bitcast(values, tf.int64)
        if dtype.is_floating:
            with tf.control_dependencies([self._check_exact(values)]):
                return tf.cast(values, tf.int64)
        if not dtype.is_integer:
            raise TypeError(
                f"Embedding `{self._name}` must be given integers or strings. "
                f"Received: dtype={dtype.name}."
            )
        return tf.cast(values, tf.int64)

    def _check_kind(self, kind: str) -> None:
        if self._kind not in (None, kind):
            raise ValueError(
                f"Embedding `{self._name}` must be given keys of one kind. Received: "
                f"{kind} after {self._kind}, which they might collide with. Use "
                "another layer for them."
            )
        self._kind = kind

    def _check_exact(self, values: Tensor) -> tf.Operation:
        bits = _EXACT_BITS[values.dtype]
        message = (
            f"Keys of embedding `{self._name}` came as {values.dtype.name}, and must "
            f"then be whole numbers below 2^{bits}: from there on a float of that type "
            "may be one of several integers. Give the input a type: "
            "`tf_keras.Input(shape, dtype='int64')`. Received, among others:"
        )
        is_exact = (tf.abs(values) < 2.0**bits) & tf.equal(values, tf.round(values))
        first = tf.boolean_mask(values, ~is_exact)[:1]
        return tf.debugging.Assert(tf.reduce_all(is_exact), [message, first])
