"""Splits a kernel into blocks of rows."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.types import Identifier
from monolith_tf.types import JsonDict

_TF_PARTITIONERS = {
    cls.__name__: cls
    for cls in (
        tf.distribute.experimental.partitioners.FixedShardsPartitioner,
        tf.distribute.experimental.partitioners.MaxSizePartitioner,
        tf.distribute.experimental.partitioners.MinSizePartitioner,
    )
}
_V1_MODULE = "tensorflow.python.ops.partitioned_variables"


def get(identifier: Identifier) -> Any:
    """Returns a partitioner from a callable, a config dict or None.

    Raises:
      TypeError: If the identifier is none of these.
    """
    if isinstance(identifier, dict):
        name = identifier.get("class_name")
        if name in _TF_PARTITIONERS:
            return _TF_PARTITIONERS[name](**identifier["config"])
        return tf_keras.utils.deserialize_keras_object(identifier)
    if getattr(identifier, "__module__", None) == _V1_MODULE:
        raise TypeError(
            "`partitioner` must be one that can be saved: those of `tf.compat.v1` "
            f"cannot. Received: partitioner={identifier!r}. Use "
            "`tf.distribute.experimental.partitioners.FixedShardsPartitioner`."
        )
    if identifier is None or callable(identifier):
        return identifier
    raise TypeError(
        "`partitioner` must be a callable or one of "
        "`tf.distribute.experimental.partitioners`. "
        f"Received: partitioner={identifier!r}."
    )


def serialize(partitioner: Identifier) -> JsonDict | None:
    """Returns a partitioner as a config value; None stays None."""
    if partitioner is None:
        return None
    name = type(partitioner).__name__
    if name in _TF_PARTITIONERS:
        # TensorFlow keeps each constructor argument under its name.
        config = {key.lstrip("_"): value for key, value in vars(partitioner).items()}
        return {"class_name": name, "config": config}
    return tf_keras.utils.serialize_keras_object(partitioner)


def split_rows(partitioner: Identifier, shape: list[int], dtype: tf.DType) -> list[int]:
    """Returns the number of rows of each block, larger blocks first.

    Args:
      partitioner: Called as `partitioner(shape=..., dtype=...)`; returns the number of
        parts of each axis.
      shape: The kernel's shape.
      dtype: The kernel's type.

    Raises:
      ValueError: If the partitioner splits an axis other than the first.
    """
    parts = list(partitioner(shape=tf.TensorShape(shape), dtype=dtype))
    if len(parts) != len(shape) or any(n != 1 for n in parts[1:]) or parts[0] < 1:
        raise ValueError(
            "`partitioner` must split only axis 0, as [parts, 1]. "
            f"Received: parts={parts} for shape={list(shape)}."
        )
    rows, larger = divmod(shape[0], min(int(parts[0]), shape[0]))
    count = min(int(parts[0]), shape[0])
    return [rows + 1] * larger + [rows] * (count - larger)
