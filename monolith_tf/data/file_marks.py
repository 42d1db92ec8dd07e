"""What files are recognised by when a job comes back to them."""

import hashlib
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias

Marks: TypeAlias = Sequence[Mapping[str, Any]]
"""Of each file, in order: its `path`, `size` in bytes and `digest`, as JSON has it."""

_EDGE_BYTES = 1 << 16


def of(files: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the marks of files; names that are of no file have a `path` alone."""
    return [_mark(file) for file in files]


def are_same(saved: Marks, here: Marks) -> bool:
    """Returns whether files are those saved, perhaps in another folder.

    Names below the folder that all of them share count, sizes, and what the files begin
    and end with; times do not.
    """
    return _recognised(saved) == _recognised(here)


def are_appended(saved: Marks, here: Marks) -> bool:
    """Returns whether files are those saved, followed by others."""
    return len(saved) < len(here) and are_same(saved, here[: len(saved)])


def _mark(file: str) -> dict[str, Any]:
    if not os.path.isfile(file):
        return {"path": file}
    size = os.path.getsize(file)
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        digest.update(opened.read(_EDGE_BYTES))
        opened.seek(max(0, size - _EDGE_BYTES))
        digest.update(opened.read(_EDGE_BYTES))
    path = os.path.abspath(file)
    return {"path": path, "size": size, "digest": digest.hexdigest()[:32]}


def _recognised(marks: Marks) -> list[tuple[Any, ...]]:
    folders = [os.path.dirname(mark["path"]) for mark in marks if "digest" in mark]
    shared = os.path.commonpath(folders) if folders else ""
    return [
        (os.path.relpath(mark["path"], shared), mark["size"], mark["digest"])
        if "digest" in mark
        else (mark["path"],)
        for mark in marks
    ]
