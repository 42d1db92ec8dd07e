"""Marks by which a job recognizes its files when it resumes, or while it reads."""

import hashlib
import os
from collections.abc import Sequence
from typing import TypeAlias

from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

Marks: TypeAlias = Sequence[JsonMapping]
"""Each file's `path`, `size` in bytes and `digest`, in order, as in JSON."""

_EDGE_BYTES = 1 << 16


def are_same(saved: Marks, here: Marks) -> bool:
    """Returns whether files are the saved ones, perhaps in another folder.

    Compares names below the folder that all files share, sizes, and the first and last
    bytes of the files, but not times.
    """
    return _recognised(saved) == _recognised(here)


def are_appended(saved: Marks, here: Marks) -> bool:
    """Returns whether files are the saved ones, followed by others."""
    return len(saved) < len(here) and are_same(saved, here[: len(saved)])


class Watch:
    """Detects that files change while a job reads them.

    A check is one call of `os.stat`. If that shows another file, size or time, the
    marks decide, so a file may be touched, or copied over itself.
    """

    def __init__(self, files: Sequence[str]) -> None:
        """Begins the watch; names that are not files are not watched."""
        self._stats = {file: _stat(file) for file in files}
        self._marks = {file: _mark(file) for file in files}

    def marks(self) -> list[JsonDict]:
        """Returns the files' first marks; a name without a file has only a `path`."""
        return list(self._marks.values())

    def check(self, file: str) -> None:
        """Raises ValueError if a file has changed since the beginning."""
        before, now = self._stats[file], _stat(file)
        if before in (None, now):
            return
        if now is not None and _mark(file) == self._marks[file]:
            self._stats[file] = now
            return
        what = "it was written again, with as many bytes"
        if now is None:
            what = "it is gone"
        elif before is not None and now[0] != before[0]:
            what = f"it had {before[0]:,} bytes, and has {now[0]:,} now"
        raise ValueError(
            f"{file}: changed while the job reads it: {what}. Files must not change "
            "until the job ends: give new data new names. To use the files as they are "
            "now, run the job again: it begins with their first row."
        )


def _stat(file: str) -> tuple[int, int, int] | None:
    """Returns size, time and inode, one of which differs if a file has changed."""
    if not os.path.isfile(file):
        return None
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _mark(file: str) -> JsonDict:
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


def _recognised(marks: Marks) -> list[tuple[object, ...]]:
    folders = [os.path.dirname(mark["path"]) for mark in marks if "digest" in mark]
    shared = os.path.commonpath(folders) if folders else ""
    return [
        (os.path.relpath(mark["path"], shared), mark["size"], mark["digest"])
        if "digest" in mark
        else (mark["path"],)
        for mark in marks
    ]
