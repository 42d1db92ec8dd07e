"""Arrow types: how columns of each are read, and whether they are as wanted."""

from collections.abc import Mapping

import pyarrow as pa

from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_WORDS: Mapping[DType, str] = {"int64": "int", "float32": "float", "string": "string"}


def column_types(schema: pa.Schema, file: str) -> dict[str, ColumnType]:
    """Returns the column types of a file's schema."""
    types = {}
    for field in schema:
        element, is_list, length = field.type, False, None
        if holds_lists(element):
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
    if is_string(type_) or is_null(type_):
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


def fits(found: DType | None, wanted: DType) -> bool:
    """Returns whether values of one type can be read as another."""
    return found == wanted or (found, wanted) == ("int64", "float32")


def check_type(name: str, found: pa.DataType, wanted: ColumnType) -> None:
    """Raises ValueError if a column's Arrow type cannot be read as wanted."""
    is_list = holds_lists(found)
    dtype = dtype_of(found.value_type if is_list else found)
    if is_null(found) or (is_list and is_null(found.value_type)):
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


def _is_uint64(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_uint64(type_.value_type)
    return bool(pa.types.is_uint64(type_))


def is_null(type_: pa.DataType) -> bool:
    """Returns whether a column of the type has no values at all."""
    return pa.types.is_null(type_)


def holds_lists(type_: pa.DataType) -> bool:
    """Returns whether values of the type are lists."""
    return (
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def is_text(type_: pa.DataType) -> bool:
    """Returns whether values of the type are text, not any bytes."""
    return (
        pa.types.is_string(type_)
        or pa.types.is_large_string(type_)
        or pa.types.is_string_view(type_)
    )


def is_string(type_: pa.DataType) -> bool:
    """Returns whether values of the type are text or bytes."""
    return (
        is_text(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
        or pa.types.is_binary_view(type_)
    )
