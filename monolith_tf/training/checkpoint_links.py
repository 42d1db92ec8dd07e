"""Which checkpoints of a job continue which, by their manifests alone."""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from monolith_tf.embedding.saved import sealed
from monolith_tf.training import checkpoint_lock
from monolith_tf.types import JsonMapping


class Link(NamedTuple):
    """What links a checkpoint to others.

    Attributes:
      name: Its folder's name.
      parent: Name of the checkpoint of which it holds the changes, or None.
      states: SHA-256 of its manifest, and of those of the same state before it.
      num_bytes: The size of its own files.
    """

    name: str
    parent: str | None
    states: tuple[str, ...]
    num_bytes: int


class Links:
    """Reads the links in a folder of checkpoints; each manifest once.

    Args:
      path: The folder.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._read: dict[str, tuple[tuple[int, int], Link]] = {}

    def of(self, name: str) -> Link | None:
        """Returns a checkpoint's link; None if there is none, or it is damaged."""
        file = self._path / name / checkpoint_lock.MANIFEST
        try:
            status = file.stat()
            identity = status.st_ino, status.st_mtime_ns
            if self._read.get(name, ((0, 0), None))[0] != identity:
                data = file.read_bytes()
                manifest = sealed.parse(data, file)[0]
                link = _link(name, manifest, sealed.digest_of(data))
                self._read[name] = identity, link
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._read.pop(name, None)
            return None
        return self._read[name][1]

    def chain(self, name: str) -> list[Link]:
        """Returns a checkpoint and those it needs, newest first, as far as they are."""
        found: list[Link] = []
        link = self.of(name)
        while link is not None and link not in found:
            found.append(link)
            link = None if link.parent is None else self.of(link.parent)
        return found

    def needed(self, names: Iterable[str]) -> set[str]:
        """Returns the names of checkpoints with all those that they need."""
        found: set[str] = set()
        for name in names:
            link = self.of(name)
            found.add(name)
            while link is not None and link.parent and link.parent not in found:
                found.add(link.parent)
                link = self.of(link.parent)
        return found


def _link(name: str, manifest: JsonMapping, sha256: str) -> Link:
    parent = manifest.get("parent")
    return Link(
        name,
        parent and parent["name"],
        (sha256, *manifest.get("replaces", ())),
        sum(manifest["files"].values()),
    )
