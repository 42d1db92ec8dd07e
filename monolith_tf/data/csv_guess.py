"""Guesses the type of a CSV column from a sample of its cells."""

import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.features.columns import DType

_INTEGER = "^-?[0-9]+$"
_TRUTH = "^(?i:true|false)$"
_CODE = "^(-0|-?0[0-9]+|[+-]?0[xX][0-9a-fA-F]+)$"
_NUMBER = (
    r"^([+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:inf|infinity|nan))$"
)


def guess(cells: pa.Array) -> DType:
    """Returns the type of most cells; the other cells are bad, and do not change it.

    If one integer has a leading zero or is hexadecimal, all are codes and read as text:
    007 is not 7. Integers of over 64 bits are bad integers. If `hold_truth`, cells with
    true or false are the integers 1 and 0; otherwise they are words.

    Args:
      cells: Strings without surrounding spaces, or null for a missing value.
    """
    dtype = _most(cells)
    if dtype != "int64" or hold_truth(cells):
        return dtype
    return "string" if _count(pc.match_substring_regex(cells, _CODE)) else dtype


def hold_truth(cells: pa.Array) -> bool:
    """Returns whether most cells are true or false.

    Args:
      cells: As for `guess`.
    """
    present = len(cells) - cells.null_count
    return 2 * _count(pc.match_substring_regex(cells, _TRUTH)) > present


def guess_number(cells: pa.Array) -> DType:
    """Returns the type of most cells, to read as numbers; int64 only if all fit.

    Args:
      cells: As for `guess`.
    """
    dtype = _most(cells)
    if dtype == "int64":
        integers = cells.filter(are_integers(cells))
        try:
            integers.cast(pa.int64())
        except pa.ArrowInvalid:
            return "float32"
    return dtype


def codes(cells: pa.Array) -> pa.Array:
    """Returns which cells may be integers with a leading zero or in hexadecimal.

    For speed, this includes other cells that begin with 0.

    Args:
      cells: As for `guess`.
    """
    begins = pc.or_(pc.starts_with(cells, "0"), pc.starts_with(cells, "-0"))
    return pc.and_(begins, pc.greater(pc.binary_length(cells), 1))


def _most(cells: pa.Array) -> DType:
    if hold_truth(cells):
        return "int64"
    present = len(cells) - cells.null_count
    integers, numbers = _count(are_integers(cells)), _count(are_numbers(cells))
    if not present or 2 * numbers <= present:
        return "string"
    return "int64" if integers == numbers else "float32"


def are_integers(cells: pa.Array) -> pa.Array:
    """Returns which cells are integers; null for a missing value."""
    return pc.match_substring_regex(cells, _INTEGER)


def are_numbers(cells: pa.Array) -> pa.Array:
    """Returns which cells are numbers; null for a missing value."""
    return pc.or_(are_integers(cells), pc.match_substring_regex(cells, _NUMBER))


def of_arrow(type_: pa.DataType) -> DType:
    """Returns the type in which to read a column, from the parser's type."""
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return "int64"
    return "float32" if pa.types.is_floating(type_) else "string"


def _count(mask: pa.Array) -> int:
    return pc.sum(mask).as_py() or 0
