"""Functions on nests of shapes and tensors, for `battery`."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.types import Nest
from monolith_tf.types import Shape
from monolith_tf.types import Tensor


def is_shape(value: object) -> bool:
    """Returns whether a value is a shape rather than a nest of shapes."""
    return isinstance(value, tuple) and all(isinstance(n, int) for n in value)


def map_shapes(function: Callable[[Shape], object], nest: Nest) -> Nest:
    """Applies a function to every shape of a nest of tuples, lists and dicts."""
    if is_shape(nest):
        return function(nest)
    if isinstance(nest, dict):
        return {key: map_shapes(function, value) for key, value in nest.items()}
    return type(nest)(map_shapes(function, value) for value in nest)


def flat_shapes(nest: Nest) -> list[tuple[int, ...]]:
    """Returns the shapes of a nest, in order."""
    found: list[tuple[int, ...]] = []
    map_shapes(found.append, nest)
    return found


def tensor(value: Tensor) -> Tensor:
    """Converts an array to a tensor, float64 to float32; keeps ragged tensors."""
    if isinstance(value, tf.RaggedTensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        value = value.astype(np.float32)
    return tf.convert_to_tensor(value)


def floating(tensor: Tensor) -> bool:
    """Returns whether a tensor has a floating-point type."""
    return tensor.dtype.is_floating


def spec(tensor: Tensor) -> Tensor:
    """Returns the spec of a tensor with an unknown batch."""
    shape = [None, *tensor.shape[1:]]
    if isinstance(tensor, tf.RaggedTensor):
        return tf.RaggedTensorSpec(
            shape, tensor.dtype, tensor.ragged_rank, tensor.row_splits.dtype
        )
    return tf.TensorSpec(shape, tensor.dtype)


def symbol(tensor: Tensor) -> Tensor:
    """Returns a Keras input for tensors like this one."""
    ragged = isinstance(tensor, tf.RaggedTensor)
    return tf_keras.Input(tensor.shape[1:], dtype=tensor.dtype, ragged=ragged)


def export(model: tf_keras.Model, inputs: list[Tensor], path: str) -> Tensor:
    """Writes a SavedModel that serves the model in inference mode, and loads it."""
    archive = tf_keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda nest: model(nest, training=False),
        input_signature=[tf.nest.map_structure(spec, inputs)],
    )
    archive.write_out(path)
    return tf.saved_model.load(path)


def reverse(tensor: Tensor) -> Tensor:
    """Returns a tensor with its batch in reverse order."""
    return tensor[::-1]


def ramp(tensor: tf.Tensor) -> tf.Tensor:
    """Returns fixed factors in a tensor's shape that differ between entries."""
    size = tf.cast(tf.size(tensor), tf.float32)
    return tf.reshape(tf.cos(tf.range(size)), tf.shape(tensor))
