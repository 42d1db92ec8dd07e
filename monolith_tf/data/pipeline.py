"""Windows of rows to `tf.data` batches.

Python passes one window at a time, as flat arrays, and TensorFlow operations slice it
into batches, so the Python cost per batch is almost zero.
"""

import dataclasses
import weakref
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import tensorflow as tf

from monolith_tf.data.windows import Window
from monolith_tf.features import strings
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.strings import StringCodes
from monolith_tf.types import Tensor

_DTYPES = {"int64": tf.int64, "float32": tf.float32, "string": tf.string}

Flat = tuple[np.ndarray | np.generic, ...]
"""Number of rows, first batch, then the arrays of each column."""


def dataset(
    windows: Callable[[], Iterator[tuple[Window, int]]],
    columns: Mapping[str, ColumnType],
    batch_size: int,
    string_codes: bool = False,
) -> tf.data.Dataset:
    """Returns batches of raw columns.

    Args:
      windows: Returns the windows, each with the number of its batches to skip.
      columns: The columns of the windows.
      batch_size: Rows per batch; a window's last batch may have fewer.
      string_codes: Whether strings come as `StringCodes`, hashed once per window.

    Returns:
      A dataset of dicts: `[batch]` tensors, `[batch, length]` tensors for lists of one
      length, ragged tensors for other lists.
    """
    used = [windows]

    def generate() -> Iterator[Flat]:
        for window, first in used[0]():
            yield flatten(window, first, columns)

    made = tf.data.Dataset.from_generator(
        generate, output_signature=tuple(signature(columns))
    )
    # TensorFlow keeps `generate` forever. Clearing `used` when the dataset dies lets
    # the source and its files go.
    if tf.executing_eagerly():  # A graph uses `generate` without the dataset.
        weakref.finalize(made, used.clear).atexit = False
    return batches(made, columns, batch_size, string_codes)


def batches(
    flat: tf.data.Dataset,
    columns: Mapping[str, ColumnType],
    batch_size: int,
    string_codes: bool,
) -> tf.data.Dataset:
    """Cuts windows into batches.

    Args:
      flat: Windows as returned by `flatten`.
      columns: As for `dataset`, like all other arguments.
      batch_size: Rows per batch.
      string_codes: Whether strings come as `StringCodes`.
    """

    @tf.autograph.experimental.do_not_convert
    def of_window(*window: Tensor) -> tf.data.Dataset:
        numbers, batch = _cut(window, columns, batch_size, string_codes)
        return numbers.map(batch)

    return flat.prefetch(1).flat_map(of_window)


def numbered_batches(
    flat: tf.data.Dataset,
    columns: Mapping[str, ColumnType],
    batch_size: int,
    string_codes: bool,
) -> tf.data.Dataset:
    """As `batches`, but each batch comes with its number.

    Args:
      flat: The number of a window's first batch, skipped or not, and the window as
        returned by `flatten`.
      columns: As for `dataset`, like all other arguments.
      batch_size: Rows per batch.
      string_codes: Whether strings come as `StringCodes`.
    """

    @tf.autograph.experimental.do_not_convert
    def of_window(number: Tensor, *window: Tensor) -> tf.data.Dataset:
        numbers, batch = _cut(window, columns, batch_size, string_codes)
        return numbers.map(lambda index: (number + index, batch(index)))

    return flat.prefetch(1).flat_map(of_window)


def _cut(
    window: tuple[Tensor, ...],
    columns: Mapping[str, ColumnType],
    batch_size: int,
    string_codes: bool,
) -> tuple[tf.data.Dataset, Callable[[Tensor], dict[str, Tensor]]]:
    """Returns the indices of a window's batches, and a function that returns one."""
    num_rows, first, *arrays = window
    num_batches = (num_rows + batch_size - 1) // batch_size
    rest = iter(arrays)
    whole = {
        name: _assemble(type_, rest, string_codes) for name, type_ in columns.items()
    }

    def batch(index: Tensor) -> dict[str, Tensor]:
        begin = index * batch_size
        end = tf.minimum(begin + batch_size, num_rows)
        return {name: _rows(column, begin, end) for name, column in whole.items()}

    return tf.data.Dataset.range(first, num_batches), batch


def signature(columns: Mapping[str, ColumnType]) -> list[tf.TensorSpec]:
    """Returns the specs of the arrays that `flatten` returns."""
    specs = [tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int64)]
    for type_ in columns.values():
        specs += _signature(type_)
    return specs


def _signature(type_: ColumnType) -> list[tf.TensorSpec]:
    """Returns the specs of a column's flat arrays."""
    if type_.length is not None:
        return [tf.TensorSpec([None, type_.length], _DTYPES[type_.dtype])]
    if type_.dtype == "string":
        specs = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.string)]
    else:
        specs = [tf.TensorSpec([None], _DTYPES[type_.dtype])]
    if type_.is_list:
        specs.append(tf.TensorSpec([None], tf.int64))
    return specs


def flatten(window: Window, first: int, columns: Mapping[str, ColumnType]) -> Flat:
    """Returns a window as the flat arrays that `signature` describes.

    Args:
      window: The window.
      first: Batches to skip at its start.
      columns: Its columns.
    """
    flat: list[np.ndarray | np.generic] = [np.int64(len(window.rows)), np.int64(first)]
    for name, type_ in columns.items():
        column = window.table.column(name)
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        if type_.length is not None:
            flat.append(array.flatten().to_numpy().reshape(-1, type_.length))
            continue
        values = array.flatten() if type_.is_list else array
        if type_.dtype == "string":
            flat += [values.indices.to_numpy(), _objects(values.dictionary)]
        else:
            flat.append(values.to_numpy())
        if type_.is_list:
            offsets = array.offsets.to_numpy().astype(np.int64)
            flat.append(offsets - offsets[0])
    return tuple(flat)


def _objects(words: pa.Array) -> np.ndarray:
    """Returns byte strings as an array of Python objects."""
    return words.to_numpy(zero_copy_only=False)


@dataclasses.dataclass(frozen=True)
class _Strings:
    """Strings of a whole window, to be copied into batches."""

    codes: Tensor
    dictionary: Tensor


def _assemble(
    type_: ColumnType, arrays: Iterator[Tensor], string_codes: bool
) -> Tensor:
    """Makes a window's column from its flat arrays."""
    column = next(arrays)
    dictionary = next(arrays) if type_.dtype == "string" else None
    if type_.is_list and type_.length is None:
        column = tf.RaggedTensor.from_row_splits(column, next(arrays), validate=False)
    if dictionary is None:
        return column
    if string_codes:
        return strings.string_codes(column, dictionary)
    return _Strings(column, dictionary)


def _rows(column: Tensor, begin: Tensor, end: Tensor) -> Tensor:
    """Returns rows `begin` to `end` of a window's column."""
    if isinstance(column, StringCodes):
        codes = _rows(column.codes, begin, end)
        return StringCodes(codes, column.dictionary, column.hashed)
    if isinstance(column, _Strings):
        codes = _rows(column.codes, begin, end)
        if isinstance(codes, tf.RaggedTensor):
            flat = tf.gather(column.dictionary, codes.values)
            return codes.with_values(flat)
        return tf.gather(column.dictionary, codes)
    if isinstance(column, tf.RaggedTensor):
        splits = column.row_splits[begin : end + 1]  # [batch + 1]
        values = column.values[splits[0] : splits[-1]]
        splits -= splits[0]
        return tf.RaggedTensor.from_row_splits(values, splits, validate=False)
    return column[begin:end]
