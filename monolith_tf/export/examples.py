"""Raw columns as serialized `tf.Example`s, and back."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType
from monolith_tf.types import Tensor

_LISTS: Mapping[DType, str] = {
    "int64": "int64_list",
    "float32": "float_list",
    "string": "bytes_list",
}


def parse(examples: Tensor, columns: Mapping[str, ColumnType]) -> dict[str, Tensor]:
    """Parses serialized examples into columns.

    Args:
      examples: `[batch]` strings.
      columns: The columns to read; a scalar that an example lacks gets its column's
        default, and raises an error if there is none.
    """
    features: dict[str, Tensor] = {}
    for name, kind in columns.items():
        dtype = tf.as_dtype(kind.dtype)
        if kind.is_list:
            features[name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
        elif kind.default is None:
            features[name] = tf.io.FixedLenFeature([], dtype)
        else:
            features[name] = tf.io.FixedLenFeature([], dtype, kind.default)
    return tf.io.parse_example(examples, features)


def serialize(
    columns: Mapping[str, ColumnType], values: Mapping[str, Tensor]
) -> list[bytes]:
    """Returns one serialized example per row of `values`."""
    lists = {
        name: values[name].to_list()
        if isinstance(values[name], tf.RaggedTensor)
        else tf.convert_to_tensor(values[name]).numpy().tolist()
        for name in columns
    }
    serialized = []
    for row in zip(*lists.values(), strict=True):
        features = {
            name: (kind.dtype, value if kind.is_list else [value])
            for (name, kind), value in zip(columns.items(), row, strict=True)
        }
        serialized.append(example(features).SerializeToString(deterministic=True))
    return serialized


def example(features: Mapping[str, tuple[DType, Sequence[Any]]]) -> tf.train.Example:
    """Returns an example of features: name -> type and values; strings are bytes."""
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(**{_LISTS[dtype]: {"value": values}})
                for name, (dtype, values) in features.items()
            }
        )
    )
