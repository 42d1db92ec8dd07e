"""Cuts large dense variables into blocks of rows, one per parameter server."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator

import tensorflow as tf

from monolith_tf.types import Tensor


class Partitioner:
    """Cuts a variable along its first axis, if it is large enough.

    Args:
      max_parts: Largest number of blocks of a variable.
      min_bytes: Smallest size of a block, in bytes.
    """

    def __init__(self, max_parts: int, min_bytes: int) -> None:
        self._partition = tf.distribute.experimental.partitioners.MinSizePartitioner(
            min_shard_bytes=min_bytes, max_shards=max_parts
        )

    def __call__(self, shape: tf.TensorShape, dtype: tf.DType) -> list[int]:
        """Returns the number of blocks along each axis."""
        if not shape.rank:
            return []
        return list(self._partition(shape=shape, dtype=dtype))


@contextlib.contextmanager
def whole_initial_values() -> Iterator[None]:
    """Makes initial values independent of how variables are cut.

    Otherwise Keras initializers draw each block separately. Enter it inside the
    strategy's scope.
    """

    def create(
        next_creator: Callable[..., tf.Variable], **kwargs: object
    ) -> tf.Variable:
        value = kwargs.get("initial_value")
        if callable(value):
            made: list[tf.Variable] = []

            def whole() -> Tensor:
                if not made:
                    made.append(value())
                return made[0]

            kwargs["initial_value"] = whole
        return next_creator(**kwargs)

    with tf.variable_creator_scope(create):
        yield
