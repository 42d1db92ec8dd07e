"""A SavedModel that answers rows."""

import pathlib
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from monolith_tf.cli import tabular_files

_LENGTH_SUFFIX = "_length"
_EXAMPLES = "serialized_example"
_ARROW_TYPES = {tf.int64: pa.int64(), tf.float32: pa.float32(), tf.string: pa.string()}


class Servable:
    """A SavedModel of `monolith-tf export`, loaded by TensorFlow alone.

    Attributes:
      columns: The raw features that it takes.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Loads a SavedModel.

        Raises:
          ValueError: If it does not take raw features by name.
        """
        # The functions die with the object that they were loaded with.
        self._loaded = tf.saved_model.load(str(path))
        key = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        if key not in self._loaded.signatures:
            known = ", ".join(sorted(self._loaded.signatures)) or "none"
            raise ValueError(f"{path} has no signature `{key}`; it has: {known}.")
        self._named = self._loaded.signatures[key]
        self._examples = self._loaded.signatures.get(_EXAMPLES)
        self._inputs = self._named.structured_input_signature[1]
        self.columns: dict[str, tabular_files.Column] = {}
        for name, spec in self._inputs.items():
            base = name.removesuffix(_LENGTH_SUFFIX)
            if base != name and base in self._inputs:
                continue
            if spec.dtype not in _ARROW_TYPES:
                raise ValueError(
                    f"{path}: the input `{name}` is of the type {spec.dtype.name}, "
                    "which is not a raw feature's. Was it made by `monolith-tf export`?"
                )
            is_list = name + _LENGTH_SUFFIX in self._inputs
            self.columns[name] = tabular_files.Column(_ARROW_TYPES[spec.dtype], is_list)

    def predict(self, rows: pa.Table, *, first_row: int = 0) -> pa.Table:
        """Returns one row of predictions for each row of raw features.

        Args:
          rows: The columns that the model takes.
          first_row: Number of the first row in its file, for messages.

        Raises:
          ValueError: If a value is missing that has no default, or of a wrong type.
        """
        lacking = [
            name
            for name, column in self.columns.items()
            if not column.is_list and rows[name].null_count
        ]
        if lacking:
            outputs = self._predict_examples(rows, lacking, first_row)
        else:
            feeds: dict[str, Any] = {}
            for name, column in self.columns.items():
                padded = self._inputs[name].shape.rank == 2
                feeds.update(_feed(name, rows[name], column, padded=padded))
            outputs = self._named(**feeds)
        return pa.table({name: _to_arrow(value) for name, value in outputs.items()})

    def _predict_examples(
        self, rows: pa.Table, lacking: list[str], first_row: int
    ) -> dict[str, Any]:
        """Asks with `tf.Example`s, which may lack features that have a default."""
        if self._examples is None:
            raise _no_value(rows, lacking[0], first_row)
        typed = {name: _cast(name, rows[name], c) for name, c in self.columns.items()}
        examples = [
            _example(dict(zip(typed, row, strict=True)), self.columns)
            for row in zip(
                *(column.to_pylist() for column in typed.values()), strict=True
            )
        ]
        try:
            return self._examples(examples=tf.constant(examples))
        except tf.errors.InvalidArgumentError as error:
            named = re.search(r"Feature: (\S+) \(data type", str(error))
            if not named or named[1] not in lacking:
                raise
            raise _no_value(rows, named[1], first_row) from None


def _no_value(rows: pa.Table, name: str, first_row: int) -> ValueError:
    row = first_row + rows[name].is_null().to_pylist().index(True)
    return ValueError(
        f"Row {row} has no value in the column `{name}`, and the model has no default "
        "for it. Fill it, or set the feature's `default` and train again."
    )


def _cast(
    name: str, values: pa.ChunkedArray, column: tabular_files.Column
) -> pa.ChunkedArray:
    """Returns values in the type that the model takes."""
    wanted = pa.list_(column.dtype) if column.is_list else column.dtype
    try:
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        is_float = pa.types.is_floating(column.dtype)
        return values.cast(wanted, safe=not is_float)
    except pa.ArrowException as error:
        raise ValueError(
            f"The column `{name}` of the type {values.type} cannot be read as "
            f"{wanted}: {error}"
        ) from None


def _feed(
    name: str, values: pa.ChunkedArray, column: tabular_files.Column, *, padded: bool
) -> dict[str, Any]:
    """Returns the named tensors of one column."""
    array = _cast(name, values, column).combine_chunks()
    if not column.is_list:
        return {name: tf.constant(_to_numpy(array))}
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
    flat = _to_numpy(array.flatten())
    if not padded:
        return {name: tf.constant(flat), name + _LENGTH_SUFFIX: tf.constant(lengths)}
    width = int(lengths.max(initial=0))
    block = np.full([len(lengths), width], b"" if flat.dtype == object else 0)
    block = block.astype(flat.dtype)
    block[np.arange(width) < lengths[:, np.newaxis]] = flat
    return {name: tf.constant(block), name + _LENGTH_SUFFIX: tf.constant(lengths)}


def _to_numpy(array: pa.Array) -> np.ndarray:
    if pa.types.is_string(array.type):
        return np.array([value.encode() for value in array.to_pylist()], dtype=object)
    return array.to_numpy(zero_copy_only=False)


def _example(row: dict[str, Any], columns: dict[str, tabular_files.Column]) -> bytes:
    features = {}
    for name, value in row.items():
        if value is None:
            continue
        entries = value if columns[name].is_list else [value]
        dtype = columns[name].dtype
        if pa.types.is_string(dtype):
            texts = tf.train.BytesList(value=[entry.encode() for entry in entries])
            features[name] = tf.train.Feature(bytes_list=texts)
        elif pa.types.is_integer(dtype):
            integers = tf.train.Int64List(value=entries)
            features[name] = tf.train.Feature(int64_list=integers)
        else:
            floats = tf.train.FloatList(value=entries)
            features[name] = tf.train.Feature(float_list=floats)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def _to_arrow(value: Any) -> pa.Array:
    array = value.numpy()
    if array.dtype == object:
        return pa.array([entry.decode() for entry in array.ravel().tolist()])
    return pa.array(array if array.ndim == 1 else array.tolist())
