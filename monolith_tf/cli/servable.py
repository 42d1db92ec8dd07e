"""A SavedModel that predicts from rows."""

import pathlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType
from monolith_tf.types import Tensor

_LENGTH_SUFFIX = "_length"
_DTYPES: dict[tf.DType, DType] = {
    tf.int64: "int64",
    tf.float32: "float32",
    tf.string: "string",
}


class Servable:
    """A SavedModel of `monolith-tf export`, loaded by TensorFlow alone.

    Attributes:
      columns: The raw features that it takes.
    """

    def __init__(
        self, path: pathlib.Path, columns: Mapping[str, ColumnType] | None = None
    ) -> None:
        """Loads a SavedModel.

        Args:
          path: Its folder.
          columns: The raw features that it takes; None derives them from its inputs,
            which do not say how a missing value is read.

        Raises:
          ValueError: If it does not take raw features by name.
        """
        # The functions live only as long as the loaded object.
        self._loaded = tf.saved_model.load(str(path))
        key = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        if key not in self._loaded.signatures:
            known = ", ".join(sorted(self._loaded.signatures)) or "none"
            raise ValueError(f"{path} has no signature `{key}`; it has: {known}.")
        self._function = self._loaded.signatures[key]
        self._inputs = self._function.structured_input_signature[1]
        self.columns = dict(columns) if columns else self._columns_of_inputs(path)

    def predict(self, rows: pa.Table) -> pa.Table:
        """Returns one row of predictions for each row of raw features.

        Args:
          rows: The columns that the model takes, cleaned by `data.arrow`.
        """
        feeds: dict[str, Tensor] = {}
        for name in self.columns:
            padded = self._inputs[name].shape.rank == 2
            feeds.update(_feed(name, rows[name], padded=padded))
        outputs = self._function(**feeds)
        return pa.table({name: _to_arrow(value) for name, value in outputs.items()})

    def _columns_of_inputs(self, path: pathlib.Path) -> dict[str, ColumnType]:
        columns = {}
        for name, spec in self._inputs.items():
            base = name.removesuffix(_LENGTH_SUFFIX)
            if base != name and base in self._inputs:
                continue
            if spec.dtype not in _DTYPES:
                raise ValueError(
                    f"{path}: the input `{name}` has the type {spec.dtype.name}, which "
                    "no raw feature has. Was it written by `monolith-tf export`?"
                )
            is_list = name + _LENGTH_SUFFIX in self._inputs
            columns[name] = ColumnType(dtype=_DTYPES[spec.dtype], is_list=is_list)
        return columns


def _feed(name: str, column: pa.ChunkedArray, *, padded: bool) -> dict[str, Tensor]:
    """Returns the named tensors of one column."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not isinstance(array, pa.ListArray | pa.FixedSizeListArray):
        return {name: _tensor(_to_numpy(array))}
    lengths = np.asarray(pc.list_value_length(array), np.int64)
    values = _to_numpy(array.flatten())
    if padded:
        width = int(lengths.max(initial=0))
        block = np.full([len(lengths), width], b"" if values.dtype == object else 0)
        block = block.astype(values.dtype)
        block[np.arange(width) < lengths[:, np.newaxis]] = values
        values = block
    return {name: _tensor(values), name + _LENGTH_SUFFIX: tf.constant(lengths)}


def _to_numpy(array: pa.Array) -> np.ndarray:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.to_numpy(zero_copy_only=False)


def _tensor(values: np.ndarray) -> tf.Tensor:
    """Returns values as a tensor; an empty array of strings needs its type given."""
    return tf.constant(values, tf.string if values.dtype == object else None)


def _to_arrow(value: tf.Tensor) -> pa.Array:
    array = value.numpy()
    if array.dtype == object:
        return pa.array([entry.decode() for entry in array.ravel().tolist()])
    return pa.array(array if array.ndim == 1 else array.tolist())
