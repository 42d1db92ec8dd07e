"""Checks that paths are not URLs, which cannot be opened."""

import os
import re

# `pathlib` turns `gs://bucket` into `gs:/bucket`.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check(name: str, path: str | os.PathLike[str]) -> None:
    """Checks that a path is not a URL, which would become a folder named `gs:`.

    Args:
      name: The user's name of the value: a key, or an argument of a command.
      path: The path.

    Raises:
      ValueError: If it is a URL.
    """
    text = os.fspath(path)
    if _URL.match(text):
        raise ValueError(
            f"`{name}` must be a path on this machine; URLs cannot be read or written. "
            f"Received: {name}={text!r}. Mount the storage, and use the path under "
            "the mount."
        )
