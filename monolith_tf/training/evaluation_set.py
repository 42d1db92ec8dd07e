"""What evaluations are of, so that no value is compared with one of other rows."""

from collections.abc import Mapping
from typing import Any

from monolith_tf.data import file_marks

FILES = "files"
"""The key of the files' marks; other keys are keys of a config."""


def changes(saved: Mapping[str, Any] | None, here: Mapping[str, Any]) -> list[str]:
    """Returns the keys in which two evaluation sets differ, of those that both have.

    Args:
      saved: The former set, as JSON has it; None, of an older checkpoint, is taken to
        be the same.
      here: The present one.
    """
    saved = saved or {}
    return [
        key
        for key, value in here.items()
        if key in saved
        and saved[key] != value
        and not (key == FILES and file_marks.are_same(saved[key], value))
    ]
