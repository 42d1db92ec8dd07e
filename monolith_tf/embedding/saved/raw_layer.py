"""One saved directory, read as it is, without tables to fill."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from monolith_tf.embedding.saved import files
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.types import JsonDict


class SavedGroup(NamedTuple):
    """A group of tables, as it was saved.

    Attributes:
      name: Its name.
      entry: Its entry in the manifest.
    """

    name: str
    entry: JsonDict


class RawLayer:
    """Reads what `EmbeddingStore.save` wrote; fulfils `merge.Layer`.

    Attributes:
      directory: The directory.
      manifest: Its manifest.

    Args:
      directory: The directory.
      with_state: Whether optimizer state is kept in memory.

    Raises:
      ValueError: If it holds no rows, or is damaged.
    """

    def __init__(self, directory: str, *, with_state: bool = True) -> None:
        self.directory = directory
        self.manifest = files.read_manifest(directory)
        self._with_state = with_state

    @property
    def has_whole_counts(self) -> bool:
        """See `merge.Layer`."""
        return self.manifest["format"] == files.FORMAT

    def groups(self) -> list[SavedGroup]:
        """Returns its groups."""
        return [SavedGroup(entry["name"], entry) for entry in self.manifest["groups"]]

    def rows(self) -> Iterator[tuple[SavedGroup, Chunk]]:
        """See `merge.Layer`."""
        for group in self.groups():
            for chunk in files.read_rows(self.directory, group.entry):
                if not self._with_state:
                    chunk.state = np.zeros([len(chunk.ids), 0], np.float32)
                yield group, chunk

    def removed(self) -> Iterator[tuple[SavedGroup, np.ndarray]]:
        """See `merge.Layer`."""
        for group in self.groups():
            for ids in files.read_removed(self.directory, group.entry):
                yield group, ids

    def counts(self) -> Iterator[tuple[SavedGroup, np.ndarray, np.ndarray]]:
        """See `merge.Layer`."""
        for group in self.groups():
            for ids, counts in files.read_counts(self.directory, group.entry):
                yield group, ids, counts
