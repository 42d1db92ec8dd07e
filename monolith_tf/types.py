"""Type aliases shared by the whole package."""

from typing import Any
from typing import TypeAlias

Tensor: TypeAlias = Any
"""A `tf.Tensor`, or anything TensorFlow converts to one."""

RaggedTensor: TypeAlias = Any
"""A `tf.RaggedTensor`."""
