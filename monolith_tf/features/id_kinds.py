"""What the ids of a table are made of, by words and by what checkpoints say."""

from collections.abc import Mapping
from typing import Any

from monolith_tf.features.columns import IdType
from monolith_tf.ids import LargeIntegers

_OF_INTEGERS: dict[LargeIntegers | None, str] = {
    "exact": "integers, all of 64 bits",
    "hash": "integers, hashed from 2^48 on",
    None: "integers, below 2^48",
}


def words(id_type: IdType | None, large_integers: LargeIntegers | None) -> str | None:
    """Returns words for the ids of a table; None where nothing is known of them.

    Args:
      id_type: What they are made of, or None where that is not known.
      large_integers: What the table does with integers outside of [0, 2^48).
    """
    if id_type == "string":
        return "strings"
    if id_type is None and large_integers is None:
        return None
    return _OF_INTEGERS[large_integers]


def kept(state: Mapping[str, Any], table: str) -> LargeIntegers | None:
    """Returns what a table of integers does with large ones by a checkpoint.

    One of version 0.1.0 does not say it. It may hold hashes of such integers, and its
    tables go on hashing.

    Args:
      state: What the checkpoint's manifest holds of the job.
      table: The table's name.
    """
    if table not in state["slots"]["slots"]:
        return None
    if "large_integers" not in state:
        return "hash"
    found: LargeIntegers | None = state["large_integers"].get(table)
    return found
