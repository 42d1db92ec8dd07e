"""Converts Arrow columns to the few types of which batches are made.

A clean column is int64, float32, strings as `dictionary<int32, binary>`, a `list` of
one of these, or a `fixed_size_list` of numbers; without nulls and NaN.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.data import arrow_arrays
from monolith_tf.data import arrow_problems
from monolith_tf.data import arrow_types
from monolith_tf.data.arrow_problems import Problem
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_NUMBERS = {"int64": pa.int64(), "float32": pa.float32()}


def clean(
    table: pa.Table, columns: Mapping[str, ColumnType]
) -> tuple[pa.Table, list[Problem]]:
    """Converts columns to their clean types.

    Args:
      table: At least these columns, each in a type of `column_types`.
      columns: The wanted columns.

    Returns:
      The clean table, with placeholders in bad rows, and the problems of bad rows.

    Raises:
      ValueError: If a column's type cannot be read as the wanted one.
    """
    arrays = []
    problems: list[Problem] = []
    for name, type_ in columns.items():
        array = arrow_arrays.single(table.column(name))
        arrow_types.check_type(name, array.type, type_)
        if type_.dtype == "string":
            problems += arrow_problems.not_text(name, array)
        if not type_.is_list:
            array, bad = _values(array, type_.dtype, type_.default)
            reason = f"no value in column `{name}`, and no default"
            problems += arrow_problems.always(bad, reason)
            if type_.is_probability and type_.dtype != "string":
                problems += arrow_problems.improbable(name, array, bad)
            if type_.is_weight and type_.dtype != "string":
                problems += arrow_problems.unweighable(name, array)
        elif type_.length is None:
            array, bad = _ragged(array, type_)
            reason = f"an element of column `{name}` is missing, and no default"
            problems += arrow_problems.always(bad, reason)
        else:
            array, bad = _fixed(array, type_)
            reason = f"column `{name}` does not hold {type_.length} numbers"
            problems += arrow_problems.always(bad, reason)
        if type_.refused and type_.dtype == "float32":
            problems += arrow_problems.infinite(name, array, type_.refused)
        arrays.append(array)
    if not columns:
        return table.select([]), problems
    return pa.table(arrays, names=list(columns)), problems


def defaulted(
    table: pa.Table, columns: Mapping[str, ColumnType]
) -> dict[str, np.ndarray]:
    """Returns column -> the rows in which `clean` puts a default, bool [rows].

    Args:
      table: As given to `clean`.
      columns: The wanted columns.
    """
    found = {}
    for name, type_ in columns.items():
        if type_.default is None:
            continue
        array = arrow_arrays.single(table.column(name))
        values = arrow_arrays.flat(array) if type_.is_list else array
        missing = pc.is_null(values, nan_is_null=type_.dtype == "float32")
        rows = arrow_arrays.to_numpy(missing)
        if type_.is_list:
            owners = arrow_arrays.owners(array)[rows]
            absent = arrow_arrays.to_numpy(array.is_null())
            rows = absent if type_.length is not None else np.zeros_like(absent)
            rows[owners] = True
        if rows.any():
            found[name] = rows
    return found


def numbers(table: pa.Table, name: str) -> pa.Array:
    """Returns the numbers of a column, of all lists where it holds lists."""
    array = arrow_arrays.single(table.column(name))
    values = arrow_arrays.flat(array)
    is_coded = pa.types.is_dictionary(values.type)
    return values.dictionary if is_coded else values


def _values(
    array: pa.Array, dtype: DType, default: int | float | str | None
) -> tuple[pa.Array, np.ndarray | None]:
    """Returns clean values, and which are missing without a default, if any."""
    if dtype == "string":
        if arrow_types.is_null(array.type):
            array = array.cast(pa.binary())
        array = arrow_arrays.strings(array)
    else:
        array = as_numbers(array, dtype)
        if dtype == "float32":
            nan = pc.is_nan(array)
            if pc.any(nan).as_py():
                array = pc.if_else(nan, None, array)
    if not array.null_count:
        return array, None
    missing = None if default is not None else arrow_arrays.to_numpy(array.is_null())
    if dtype == "string":
        return _fill_strings(array, default or ""), missing
    return array.fill_null(pa.scalar(default or 0, _NUMBERS[dtype])), missing


def as_numbers(array: pa.Array, dtype: DType) -> pa.Array:
    """Casts numbers; uint64 keeps its bits, since ids are often uint64 hashes."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        array = array.cast(type_.value_type)
        type_ = array.type
    if dtype == "int64":
        if pa.types.is_uint64(type_):
            return array.view(pa.int64())
        if pa.types.is_date32(type_) or pa.types.is_time32(type_):
            array = array.view(pa.int32())
        elif pa.types.is_temporal(type_):
            return array.view(pa.int64())
    return array.cast(_NUMBERS[dtype], safe=False)


def _fill_strings(array: pa.DictionaryArray, default: object) -> pa.DictionaryArray:
    """Replaces nulls by a string, which it adds to the dictionary."""
    value = pa.array([str(default).encode()], pa.binary())
    codes = array.indices.fill_null(len(array.dictionary))
    return pa.DictionaryArray.from_arrays(
        codes, pa.concat_arrays([array.dictionary, value])
    )


def _ragged(array: pa.Array, type_: ColumnType) -> tuple[pa.Array, np.ndarray | None]:
    """Returns clean lists; a missing list becomes an empty one."""
    lengths = arrow_arrays.lengths(array)
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values, missing = _values(arrow_arrays.flat(array), type_.dtype, type_.default)
    bad = None
    if missing is not None:
        bad = np.zeros(len(array), bool)
        bad[arrow_arrays.owners(array)[missing]] = True
    return pa.ListArray.from_arrays(pa.array(splits), values), bad


def _fixed(array: pa.Array, type_: ColumnType) -> tuple[pa.Array, np.ndarray | None]:
    """Returns lists of one length; a missing list becomes one of defaults."""
    length = type_.length or 0
    lengths = arrow_arrays.lengths(array)
    absent = arrow_arrays.to_numpy(array.is_null())
    right = (lengths == length) & ~absent
    values, missing = _values(arrow_arrays.flat(array), type_.dtype, type_.default)
    numbers = np.full(
        (len(lengths), length), type_.default or 0, values.type.to_pandas_dtype()
    )
    flat_right = np.repeat(right, lengths)
    numbers[right] = np.asarray(values)[flat_right].reshape(-1, length)
    bad = ~right if type_.default is None else ~right & ~absent
    if missing is not None:
        bad[arrow_arrays.owners(array)[missing]] = True
    made = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), length)
    return made, bad if bad.any() else None
