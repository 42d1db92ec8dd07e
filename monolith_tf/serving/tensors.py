"""Tensors of gRPC requests, read without trusting their stated shapes and types."""

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from monolith_tf.serving import errors

MAX_EXPANDED_BYTES = 64 << 20
"""Limit for a tensor with a much smaller message, since its last value is repeated."""

_MOST_TIMES = 8  # A value of eight bytes may take one byte in a message.


def read(
    name: str, proto: tensor_pb2.TensorProto, info: meta_graph_pb2.TensorInfo
) -> np.ndarray:
    """Returns the value of an input.

    Args:
      name: The input's name.
      proto: A `TensorProto`.
      info: The signature's `TensorInfo` of the input.

    Raises:
      RequestError: If it is not of the input's type, or not a valid tensor.
    """
    if proto.dtype != info.dtype:
        raise errors.bad_request(
            f"`{name}` must be of the type {_type_name(info.dtype)}. "
            f"Received: {_type_name(proto.dtype)}."
        )
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or min(shape, default=0) < 0:
        found = shape or "a shape of unknown rank"
        raise errors.bad_request(
            f"`{name}` must have a shape of sizes of at least 0. Received: {found}."
        )
    item_bytes = tf.as_dtype(proto.dtype).size or 8
    # An empty tensor may be harmful too: a model may make a range of one of its sizes.
    size = math.prod(max(1, dim) for dim in shape) * item_bytes
    limit = max(MAX_EXPANDED_BYTES, _MOST_TIMES * proto.ByteSize())
    if size > limit:
        raise errors.bad_request(
            f"`{name}` is too large for its message: its shape {_cut(shape)} takes "
            f"more than {limit:,} bytes."
        )
    try:
        return tf.make_ndarray(proto)
    except Exception as error:  # Any error means that the message is invalid.
        raise errors.bad_request(f"`{name}` is not a valid tensor: {error}") from None


def _type_name(number: int) -> str:
    try:
        return tf.as_dtype(number).name
    except TypeError:
        return f"an unknown type, {number}"


def _cut(shape: list[int]) -> str:
    return str(shape if len(shape) <= 8 else [*shape[:8], "..."])
