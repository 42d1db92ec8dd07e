"""Compares evaluation data, so that metrics of other rows are not compared."""

from monolith_tf.data import file_marks
from monolith_tf.types import JsonMapping

FILES = "files"
"""The key of the files' marks; other keys are keys of a config."""


def changes(saved: JsonMapping | None, here: JsonMapping) -> list[str]:
    """Returns the keys that two evaluation sets both have, with different values.

    Args:
      saved: The previous set, as in JSON; None, from an older checkpoint, counts as
        equal.
      here: The current set.
    """
    saved = saved or {}
    return [
        key
        for key, value in here.items()
        if key in saved
        and saved[key] != value
        and not (key == FILES and file_marks.are_same(saved[key], value))
    ]
