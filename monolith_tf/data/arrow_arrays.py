"""Arrow arrays of any type: their strings, and the elements of their lists."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.data import arrow_types

STRINGS = pa.dictionary(pa.int32(), pa.binary())


def single(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.table([column], ["x"]).unify_dictionaries()[0].combine_chunks()


def strings(array: pa.Array) -> pa.DictionaryArray:
    """Returns a string-like array as `STRINGS`; nulls stay."""
    if pa.types.is_dictionary(array.type):
        if array.dictionary.null_count:
            array = array.cast(array.type.value_type).dictionary_encode()
    else:
        array = array.dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        array.indices.cast(pa.int32()), array.dictionary.cast(pa.binary())
    )


def flat(array: pa.Array) -> pa.Array:
    """Returns the elements of all lists, one after another, or the array itself.

    An array of type null has no elements.
    """
    if arrow_types.is_null(array.type):
        return pa.nulls(0)
    return array.flatten() if arrow_types.holds_lists(array.type) else array


def lengths(array: pa.Array) -> np.ndarray:
    """Returns how many values of `flat` each row has, int64 [rows]."""
    if arrow_types.is_null(array.type):
        return np.zeros(len(array), np.int64)
    if not arrow_types.holds_lists(array.type):
        return np.ones(len(array), np.int64)
    return to_numpy(pc.list_value_length(array).fill_null(0)).astype(np.int64)


def owners(array: pa.Array) -> np.ndarray:
    """Returns the row of each value of `flat`, int64 [values]."""
    return np.repeat(np.arange(len(array)), lengths(array))


def to_numpy(array: pa.Array) -> np.ndarray:
    """Returns an array as NumPy has it, copied where it must be."""
    return array.to_numpy(zero_copy_only=False)
