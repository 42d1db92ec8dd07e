"""Type aliases shared by the whole package."""

from collections.abc import Mapping
from typing import Any
from typing import TypeAlias

Tensor: TypeAlias = Any
"""A `tf.Tensor`, or anything TensorFlow converts to one."""

RaggedTensor: TypeAlias = Any
"""A `tf.RaggedTensor`."""

Nest: TypeAlias = Any
"""A tensor, or a list, tuple or dictionary of nests."""

Shape: TypeAlias = Any
"""A `tf.TensorShape`, or a list of sizes; in drawing also a tensor."""

Shapes: TypeAlias = Any
"""A shape, or a list or dictionary of shapes, as for Keras' `build`."""

Training: TypeAlias = Any
"""Keras' `training`: a bool, a scalar tensor, or None for the default."""

Identifier: TypeAlias = Any
"""What `get` of Keras takes: a name, a config, an object, or None."""

JsonDict: TypeAlias = dict[str, Any]
"""An object of JSON."""

JsonMapping: TypeAlias = Mapping[str, Any]
"""An object of JSON, to read."""
