"""What cells of a CSV column are read as, from a sample of them."""

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
    """Returns what most cells are: the others are bad, and no reason to read as text.

    Integers of which one has a leading zero or is hexadecimal are codes, and text: 007
    is not 7. Those beyond 64 bits are integers, and bad. Cells that say true or false
    are integers, 1 and 0, where `hold_truth`; among numbers they are words.

    Args:
      cells: Strings without spaces around them, or null where a value is missing.
    """
    dtype = _most(cells)
    if dtype != "int64" or hold_truth(cells):
        return dtype
    return "string" if _count(pc.match_substring_regex(cells, _CODE)) else dtype


def hold_truth(cells: pa.Array) -> bool:
    """Returns whether most cells say true or false.

    Args:
      cells: As for `guess`.
    """
    present = len(cells) - cells.null_count
    return 2 * _count(pc.match_substring_regex(cells, _TRUTH)) > present


def guess_number(cells: pa.Array) -> DType:
    """Returns what most cells are where numbers are wanted: integers if all fit.

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
    """Returns which cells may be integers with a leading zero or hexadecimal ones.

    It is fast, and takes other cells that begin with 0 for codes too.

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
    """Returns which cells are integers, null where a value is missing."""
    return pc.match_substring_regex(cells, _INTEGER)


def are_numbers(cells: pa.Array) -> pa.Array:
    """Returns which cells are numbers, null where a value is missing."""
    return pc.or_(are_integers(cells), pc.match_substring_regex(cells, _NUMBER))


def of_arrow(type_: pa.DataType) -> DType:
    """Returns what a column is read as, from what the parser takes it for."""
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return "int64"
    return "float32" if pa.types.is_floating(type_) else "string"


def _count(mask: pa.Array) -> int:
    return pc.sum(mask).as_py() or 0
