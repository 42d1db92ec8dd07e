"""Columns of files as values of JSON."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.data import arrow
from monolith_tf.data import arrow_arrays
from monolith_tf.data import arrow_types


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column whose values are numbers, strings, lists and null.

    Dates and times become the integers that training reads.

    Raises:
      pa.ArrowInvalid: If bytes are not UTF-8.
    """
    return pa.chunked_array([_plain(chunk) for chunk in column.chunks] or [pa.nulls(0)])


def _plain(array: pa.Array) -> pa.Array:
    type_ = array.type
    if pa.types.is_dictionary(type_):
        return _plain(array.cast(type_.value_type))
    if arrow_types.holds_lists(type_):
        values = _plain(arrow_arrays.flat(array))
        lengths = arrow_arrays.lengths(array)
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        made = pa.ListArray.from_arrays(pa.array(splits), values)
        return pc.if_else(array.is_null(), pa.scalar(None, made.type), made)
    if arrow_types.is_string(type_):
        return array.cast(pa.string())
    if pa.types.is_temporal(type_):
        return arrow.as_numbers(array, "int64")
    if pa.types.is_decimal(type_):
        return arrow.as_numbers(array, "float32")
    return array
