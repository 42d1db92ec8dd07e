"""Converts Arrow columns to the few types of which batches are made.

A clean column is int64, float32, strings as `dictionary<int32, binary>`, a `list` of
one of these, or a `fixed_size_list` of numbers; without nulls and NaN.
"""

from collections.abc import Callable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

STRINGS = pa.dictionary(pa.int32(), pa.binary())
_NUMBERS = {"int64": pa.int64(), "float32": pa.float32()}
_WORDS: Mapping[DType, str] = {"int64": "int", "float32": "float", "string": "string"}

Problem = tuple[np.ndarray, Callable[[int], str]]
"""Which rows are bad, bool [rows], and a function from a row's place to the reason."""


def column_types(schema: pa.Schema, file: str) -> dict[str, ColumnType]:
    """Returns the column types of a file's schema."""
    types = {}
    for field in schema:
        element, is_list, length = field.type, False, None
        if _is_list(element):
            is_list = True
            if pa.types.is_fixed_size_list(element):
                length = element.list_size
            element = element.value_type
        dtype = dtype_of(element)
        types[field.name] = ColumnType(
            dtype=dtype or "string",
            is_list=is_list,
            length=length,
            is_unsigned=_is_uint64(element),
            kind=_kind(element),
            written=f"{field.type} in {file}",
            is_readable=dtype is not None,
        )
    return types


def dtype_of(type_: pa.DataType) -> DType | None:
    """Returns the type as which an Arrow type is read; None if it cannot be read."""
    if pa.types.is_dictionary(type_):
        return dtype_of(type_.value_type)
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return "int64"
    if pa.types.is_temporal(type_) and not pa.types.is_interval(type_):
        return "int64"  # in the unit of the file
    if pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "float32"
    if _is_string(type_) or _is_null(type_):
        return "string"
    return None


def _kind(type_: pa.DataType) -> str:
    """Returns what the numbers of an Arrow type mean; see `ColumnType.kind`."""
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    if pa.types.is_boolean(type_):
        return "bool"
    if pa.types.is_timestamp(type_):
        return f"timestamp[{type_.unit}]"  # The same epoch in every time zone.
    if pa.types.is_temporal(type_):
        return str(type_)
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    return "number" if is_number or pa.types.is_decimal(type_) else ""


def mean_alike(found: str, wanted: str) -> bool:
    """Returns whether a file's numbers mean what is wanted; see `ColumnType.kind`."""
    if wanted == "amount" and found in ("bool", "number"):
        return True
    return found == wanted or "" in (found, wanted)


def _is_uint64(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_uint64(type_.value_type)
    return bool(pa.types.is_uint64(type_))


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
        array = _single(table.column(name))
        check_type(name, array.type, type_)
        if type_.dtype == "string":
            problems += _not_text(name, array)
        if not type_.is_list:
            array, bad = _values(array, type_.dtype, type_.default)
            if bad is not None:
                reason = f"no value in column `{name}`, and no default"
                problems.append((bad, _always(reason)))
            if type_.is_probability and type_.dtype != "string":
                problems += _improbable(name, array, bad)
            if type_.is_weight and type_.dtype != "string":
                problems += _unweighable(name, array)
        elif type_.length is None:
            array, bad = _ragged(array, type_)
            if bad is not None:
                reason = f"an element of column `{name}` is missing, and no default"
                problems.append((bad, _always(reason)))
        else:
            array, bad = _fixed(array, type_)
            if bad is not None:
                reason = f"column `{name}` does not hold {type_.length} numbers"
                problems.append((bad, _always(reason)))
        if type_.refused and type_.dtype == "float32":
            problems += _infinite(name, array, type_.refused)
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
        array = _single(table.column(name))
        values = _elements(array) if type_.is_list else array
        missing = pc.is_null(values, nan_is_null=type_.dtype == "float32")
        rows = _mask(missing)
        if type_.is_list:
            lengths = _lengths(array)
            owners = np.repeat(np.arange(len(lengths)), lengths)[rows]
            absent = _mask(array.is_null())
            rows = absent if type_.length is not None else np.zeros_like(absent)
            rows[owners] = True
        if rows.any():
            found[name] = rows
    return found


def check_type(name: str, found: pa.DataType, wanted: ColumnType) -> None:
    """Raises ValueError if a column's Arrow type cannot be read as wanted."""
    is_list = _is_list(found)
    dtype = dtype_of(found.value_type if is_list else found)
    if _is_null(found) or (is_list and _is_null(found.value_type)):
        return  # no values at all
    if is_list == wanted.is_list and fits(dtype, wanted.dtype):
        if mean_alike(_kind(found.value_type if is_list else found), wanted.kind):
            return
        raise ValueError(
            f"column `{name}` has type {found}, but type {wanted.written}: one value "
            "would become two numbers, or two values one. Give it one type in all "
            "files."
        )
    expected = f"lists of {wanted.dtype}" if wanted.is_list else wanted.dtype
    raise ValueError(
        f"column `{name}` has type {found} and cannot be read as {expected}. "
        f"{_way_out(dtype, is_list, wanted)}"
    )


def _way_out(dtype: DType | None, is_list: bool, wanted: ColumnType) -> str:
    """Returns what to do about a column of an unwanted type."""
    way_out = "A column needs one type in all files of a job: convert it here"
    if dtype is None:
        return f"{way_out}."
    if is_list != wanted.is_list:
        other = "a list" if is_list else "one value"
        return f"{way_out}, or change `kind` of the feature if each row has {other}."
    if (dtype, wanted.dtype) == ("float32", "int64"):
        return f"{way_out}, or set `dtype: float` of the dense feature that reads it."
    word = _WORDS[dtype]
    return f"{way_out}, or in the others, and set `dtype: {word}` of the feature."


def fits(found: DType | None, wanted: DType) -> bool:
    """Returns whether values of one type can be read as another."""
    return found == wanted or (found, wanted) == ("int64", "float32")


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns a column whose values are Python's numbers, strings, lists and None.

    Dates and times are the integers that training reads.

    Raises:
      ValueError: If bytes are not UTF-8.
    """
    return pa.chunked_array([_plain(chunk) for chunk in column.chunks] or [pa.nulls(0)])


def _plain(array: pa.Array) -> pa.Array:
    type_ = array.type
    if pa.types.is_dictionary(type_):
        return _plain(array.cast(type_.value_type))
    if _is_list(type_):
        values = _plain(_elements(array))
        lengths = _lengths(array)
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        absent = pa.array(_mask(array.is_null()))
        made = pa.ListArray.from_arrays(pa.array(splits), values)
        return pc.if_else(absent, pa.scalar(None, made.type), made)
    if _is_string(type_):
        return array.cast(pa.string())
    if pa.types.is_temporal(type_) or pa.types.is_decimal(type_):
        return _numbers(array, "int64" if pa.types.is_temporal(type_) else "float32")
    return array


def numbers(table: pa.Table, name: str) -> pa.Array:
    """Returns the numbers of a column, of all lists where it holds lists."""
    array = _single(table.column(name))
    values = _elements(array) if _is_list(array.type) else array
    is_coded = pa.types.is_dictionary(values.type)
    return values.dictionary if is_coded else values


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


def _values(
    array: pa.Array, dtype: DType, default: int | float | str | None
) -> tuple[pa.Array, np.ndarray | None]:
    """Returns clean values, and which are missing without a default, if any."""
    if dtype == "string":
        array = strings(array.cast(pa.binary()) if _is_null(array.type) else array)
    else:
        array = _numbers(array, dtype)
        if dtype == "float32":
            nan = pc.is_nan(array)
            if pc.any(nan).as_py():
                array = pc.if_else(nan, None, array)
    if not array.null_count:
        return array, None
    missing = None if default is not None else _mask(array.is_null())
    if dtype == "string":
        return _fill_strings(array, default or ""), missing
    return array.fill_null(pa.scalar(default or 0, _NUMBERS[dtype])), missing


def _improbable(name: str, array: pa.Array, bad: np.ndarray | None) -> list[Problem]:
    """Returns the problem of clean labels that must be from 0 to 1, if any."""
    values = _mask(array)
    outside = ~((values >= 0) & (values <= 1))
    if bad is not None:
        outside &= ~bad
    if not outside.any():
        return []

    def reason(place: int) -> str:
        return (
            f"column `{name}`: the label {values[place]:g} is not between 0 and 1, as "
            "a log loss needs; set `equals` of the label to the value that means 1, or "
            "use another loss"
        )

    return [(outside, reason)]


def _infinite(name: str, array: pa.Array, refused: tuple[float, ...]) -> list[Problem]:
    """Returns what is bad about clean numbers, or lists of them, if any is refused."""
    is_list = _is_list(array.type)
    values = _mask(_elements(array) if is_list else array)
    places = np.flatnonzero(np.isinf(values))
    places = places[np.isin(values[places], refused)]
    if not len(places):
        return []
    lengths = _lengths(array) if is_list else np.ones(len(array), np.int64)
    owners = np.repeat(np.arange(len(lengths)), lengths)[places]
    of_rows = dict(zip(owners.tolist(), values[places].tolist(), strict=True))
    bad = np.zeros(len(array), bool)
    bad[owners] = True

    def reason(place: int) -> str:
        return (
            f"column `{name}`: {of_rows[place]:g}, as float32, has no distance to the "
            "mean that `zscore` takes; put `clip` before it"
        )

    return [(bad, reason)]


def _unweighable(name: str, array: pa.Array) -> list[Problem]:
    """Returns the problem of clean weights, if any is negative or infinite."""
    values = _mask(array)
    wrong = ~((values >= 0) & (values < np.inf))
    if not wrong.any():
        return []

    def reason(place: int) -> str:
        return (
            f"column `{name}`: the weight {values[place]:g} is not a finite number of "
            "at least 0"
        )

    return [(wrong, reason)]


def _not_text(name: str, array: pa.Array) -> list[Problem]:
    """Returns the problem of strings, or lists of strings, that are not UTF-8, if any.

    Columns of Arrow's type binary may hold any bytes.
    """
    is_list = _is_list(array.type)
    values = _elements(array) if is_list else array
    is_coded = pa.types.is_dictionary(values.type)
    words = values.dictionary if is_coded else values
    if not _is_text(words.type):
        return []
    try:
        words.validate(full=True)
    except pa.ArrowInvalid:
        pass
    else:
        return []
    values = strings(values)
    reasons = {}
    for code, word in enumerate(values.dictionary.to_pylist()):
        try:
            word.decode()
        except UnicodeDecodeError:
            reasons[code] = (
                f"column `{name}`: {word!r} is not UTF-8 text, as the column's type "
                "string needs; the type binary takes any bytes"
            )
    codes = values.indices.fill_null(-1).to_numpy()
    places = np.flatnonzero(np.isin(codes, list(reasons)))
    lengths = _lengths(array) if is_list else np.ones(len(array), np.int64)
    owners = np.repeat(np.arange(len(lengths)), lengths)[places].tolist()
    of_rows = {
        owner: reasons[code]
        for owner, code in zip(owners, codes[places].tolist(), strict=True)
    }
    bad = np.zeros(len(array), bool)
    bad[owners] = True
    return [(bad, lambda place: of_rows[place])] if owners else []


def _always(reason: str) -> Callable[[int], str]:
    return lambda place: reason


def _numbers(array: pa.Array, dtype: DType) -> pa.Array:
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
    lengths = _lengths(array)
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values, missing = _values(_elements(array), type_.dtype, type_.default)
    bad = None
    if missing is not None:
        owner = np.repeat(np.arange(len(lengths)), lengths)
        bad = np.zeros(len(lengths), bool)
        bad[owner[missing]] = True
    return pa.ListArray.from_arrays(pa.array(splits), values), bad


def _fixed(array: pa.Array, type_: ColumnType) -> tuple[pa.Array, np.ndarray | None]:
    """Returns lists of one length; a missing list becomes one of defaults."""
    length = type_.length or 0
    lengths = _lengths(array)
    absent = _mask(array.is_null())
    right = (lengths == length) & ~absent
    values, missing = _values(_elements(array), type_.dtype, type_.default)
    numbers = np.full(
        (len(lengths), length), type_.default or 0, values.type.to_pandas_dtype()
    )
    flat_right = np.repeat(right, lengths)
    numbers[right] = np.asarray(values)[flat_right].reshape(-1, length)
    bad = ~right if type_.default is None else ~right & ~absent
    if missing is not None:
        owner = np.repeat(np.arange(len(lengths)), lengths)
        bad[owner[missing]] = True
    made = pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), length)
    return made, bad if bad.any() else None


def _lengths(array: pa.Array) -> np.ndarray:
    """Returns the number of elements of each list, 0 if missing, int64 [rows]."""
    if _is_null(array.type):
        return np.zeros(len(array), np.int64)
    lengths = pc.list_value_length(array).fill_null(0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def _elements(array: pa.Array) -> pa.Array:
    """Returns the elements of all lists, one after another."""
    return pa.nulls(0) if _is_null(array.type) else array.flatten()


def _single(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column as one array."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.table([column], ["x"]).unify_dictionaries()[0].combine_chunks()


def _mask(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)


def _is_null(type_: pa.DataType) -> bool:
    return pa.types.is_null(type_)


def _is_list(type_: pa.DataType) -> bool:
    return (
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def _is_text(type_: pa.DataType) -> bool:
    return (
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
    )


def _is_string(type_: pa.DataType) -> bool:
    return (
        _is_text(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
        or pa.types.is_binary_view(type_)
    )
