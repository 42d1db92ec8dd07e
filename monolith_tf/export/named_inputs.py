"""Raw columns as the named tensors of a signature."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import tensorflow as tf

from monolith_tf.export.errors import ExportError
from monolith_tf.features.columns import ColumnType
from monolith_tf.padded import Padded
from monolith_tf.types import RaggedTensor
from monolith_tf.types import Tensor

LENGTH_SUFFIX = "_length"


class NamedInputs:
    """One named tensor per column, and for lists a second one with their lengths.

    Attributes:
      joins_rows: Whether each tensor has one entry per row.

    Args:
      columns: The raw columns.
      lists: The form of list values: "padded", `[batch, length]`, or "values",
        `[total]`.

    Raises:
      ExportError: If two inputs have one name.
    """

    def __init__(
        self, columns: Mapping[str, ColumnType], lists: Literal["padded", "values"]
    ) -> None:
        self._columns = dict(columns)
        self._padded = lists == "padded"
        self.joins_rows = self._padded or not any(k.is_list for k in columns.values())
        for name, kind in columns.items():
            if kind.is_list and name + LENGTH_SUFFIX in columns:
                raise ExportError(
                    f"The column `{name + LENGTH_SUFFIX}` has the name of the input "
                    f"for the lengths of the lists in `{name}`. Rename one of them."
                )

    def specs(self, batch: int | None = None) -> dict[str, tf.TensorSpec]:
        """Returns the specs of the tensors."""
        specs = {}
        for name, kind in self._columns.items():
            shape = [batch]
            if kind.is_list:
                length = name + LENGTH_SUFFIX
                specs[length] = tf.TensorSpec([batch], tf.int64, name=length)
                shape = [batch, None] if self._padded else [None]
            specs[name] = tf.TensorSpec(shape, tf.as_dtype(kind.dtype), name=name)
        return specs

    @tf.autograph.experimental.do_not_convert
    def decode(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the columns from tensors; lists are ragged or `Padded`."""
        columns = {}
        for name, kind in self._columns.items():
            value = tensors[name]
            if kind.is_list:
                value = self._list(name, value, tensors[name + LENGTH_SUFFIX])
            columns[name] = value
        return columns

    def encode(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Returns the arrays for columns; the inverse of `decode`."""
        arrays = {}
        for name, kind in self._columns.items():
            value = sample[name]
            if kind.is_list:
                if not isinstance(value, tf.RaggedTensor):
                    value = tf.RaggedTensor.from_tensor(value)
                arrays[name + LENGTH_SUFFIX] = value.row_lengths().numpy()
                value = value.to_tensor() if self._padded else value.flat_values
            arrays[name] = tf.convert_to_tensor(value).numpy()
        return arrays

    def _list(self, name: str, values: Tensor, lengths: Tensor) -> RaggedTensor:
        if self._padded:
            width = tf.shape(values)[1]
            # As unsigned numbers, negative lengths exceed every width.
            unsigned = tf.bitcast(lengths, tf.uint64)
            fits = tf.reduce_max(unsigned) <= tf.cast(width, tf.uint64)
            rule = "between 0 and the number of its columns"
        else:
            total = tf.reduce_sum(lengths)
            fits = tf.reduce_all(lengths >= 0) & (total == tf.size(values, tf.int64))
            rule = "at least 0, and add up to the number of its values"
        message = f"`{name}{LENGTH_SUFFIX}` must be, for each row of `{name}`, {rule}."
        # `tf.debugging.Assert` would add a branch around it, which takes longer.
        fails = tf.raw_ops.Assert(condition=fits, data=[message, lengths])
        if self._padded:  # Bad lengths break no later operation, so none waits.
            return Padded(values, lengths)
        with tf.control_dependencies([fails]):
            lengths = tf.identity(lengths)
        return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)
