"""Converts the keys of Keras users to int64."""

import tensorflow as tf

from monolith_tf.types import Tensor

_NUM_HASHES = 2**63 - 1
_EXACT_BITS = {tf.bfloat16: 8, tf.float16: 11, tf.float32: 24, tf.float64: 53}
"""A float type represents every integer below 2 to this power."""


class Keys:
    """Converts integers or strings to int64; different integers stay different.

    Strings are hashed to 63 bits: among n strings, n (n - 1) / 2^64 pairs are expected
    to collide.

    Args:
      name: Name of the layer in errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._kind: str | None = None

    def as_int64(self, values: Tensor) -> Tensor:
        """Returns `values` as int64 of the same shape.

        Raises:
          ValueError: If strings are mixed with integers, also over several calls.
          TypeError: If `values` are neither.
          tf.errors.InvalidArgumentError: If `values` are floats that are not integers,
            or too large to represent every integer.
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
