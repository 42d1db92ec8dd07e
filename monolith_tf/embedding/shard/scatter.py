"""Writing rows of a variable, without a read of all of it afterwards."""

import tensorflow as tf

from monolith_tf.embedding.shard.bindable import Cell
from monolith_tf.types import Tensor


def scatter(
    variable: tf.Variable | Cell, numbers: Tensor, values: Tensor
) -> tf.Operation:
    """Writes rows of a variable.

    Unlike `tf.Variable.scatter_update`, which adds an operation to a graph that reads
    the whole variable.
    """
    return tf.raw_ops.ResourceScatterUpdate(
        resource=variable.handle,
        indices=tf.convert_to_tensor(numbers, tf.int64),
        updates=tf.convert_to_tensor(values, variable.dtype),
    )
