"""What cells of a CSV column are read as, from a sample of them."""

import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.features.columns import DType

_INTEGER = "^(-?[0-9]{1,19}|(?i:true|false))$"
_NUMBER = (
    r"^([+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(?i:inf|infinity|nan))$"
)


def guess(cells: pa.Array) -> DType:
    """Returns what most cells are: the others are bad, and no reason to read as text.

    Args:
      cells: Strings without spaces around them, or null where a value is missing.
    """
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
