"""The raw ids of a table, in words and as recorded in checkpoints."""

from monolith_tf.features.columns import IdType
from monolith_tf.ids import LargeIntegers
from monolith_tf.types import JsonMapping

_OF_INTEGERS: dict[LargeIntegers | None, str] = {
    "exact": "integers, all of 64 bits",
    "hash": "integers, hashed from 2^48 on",
    None: "integers, below 2^48",
}


def words(id_type: IdType | None, large_integers: LargeIntegers | None) -> str | None:
    """Returns a description of a table's raw ids; None if nothing is known.

    Args:
      id_type: The type of the ids, or None if unknown.
      large_integers: How the table handles integers outside [0, 2^48).
    """
    if id_type == "string":
        return "strings"
    if id_type is None and large_integers is None:
        return None
    return _OF_INTEGERS[large_integers]


def kept(state: JsonMapping, table: str) -> LargeIntegers | None:
    """Returns how a table in a checkpoint handles large integers.

    Checkpoints of version 0.1.0 do not record this. They may hold hashes of such
    integers, so their tables continue to hash.

    Args:
      state: The job's state in the checkpoint's manifest.
      table: The table's name.
    """
    if table not in state["slots"]["slots"]:
        return None
    if "large_integers" not in state:
        return "hash"
    found: LargeIntegers | None = state["large_integers"].get(table)
    return found
