"""Paths of this machine, and how they differ from URLs, which nothing can open."""

import os
import re

# `pathlib` makes `gs:/bucket` of `gs://bucket`.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check(name: str, path: str | os.PathLike[str]) -> None:
    """Checks that a path is no URL, which would be taken for a folder named `gs:`.

    Args:
      name: What the user calls the value: a key, or an argument of a command.
      path: The path.

    Raises:
      ValueError: If it is one.
    """
    text = os.fspath(path)
    if _URL.match(text):
        raise ValueError(
            f"`{name}` must be a path on this machine; URLs cannot be read or written. "
            f"Received: {name}={text!r}. Mount the storage, and give the path below "
            "the mount."
        )
