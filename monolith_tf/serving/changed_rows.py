"""The rows that a checkpoint changes on a server at an earlier step."""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from monolith_tf.embedding.saved import merge
from monolith_tf.embedding.saved import raw_layer
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.export import updates
from monolith_tf.ids import HASH_BITS
from monolith_tf.serving import errors
from monolith_tf.serving import shared_reading
from monolith_tf.types import JsonMapping


class Rows(NamedTuple):
    """Rows of one table.

    Attributes:
      table: Its name in `update_embeddings`, with a suffix if the table is exact.
      ids: Feature ids, `[n]`, int64; the integers themselves for an exact table.
      weights: `[n, dim]`, float32.
    """

    table: str
    ids: np.ndarray
    weights: np.ndarray

    def split(self, max_bytes: int) -> Iterator["Rows"]:
        """Yields the rows in pieces of at most `max_bytes`, but at least one row."""
        size = max(1, max_bytes // (8 + 4 * self.weights.shape[1]))
        for start in range(0, len(self.ids), size):
            piece = slice(start, start + size)
            yield Rows(self.table, self.ids[piece], self.weights[piece])

    def clipped(self, largest: np.ndarray) -> tuple["Rows", int]:
        """Returns the rows clipped to limits, `[dim]`, and how many were clipped."""
        beyond = (np.abs(self.weights) > largest).any(axis=1)
        if not beyond.any():
            return self, 0
        weights = np.clip(self.weights, -largest, largest)
        return self._replace(weights=weights), int(beyond.sum())


class SavedRows:
    """The rows of a checkpoint, selected by the step of their last update.

    Several threads may iterate over them at once; the files are read once for threads
    that keep up. Checksums are not verified: `open_checkpoint` has done so.

    Attributes:
      tables: Table -> width of its rows.
      largest: Table -> the largest numbers that can be served, `[dim]`, float32.

    Args:
      directory: The folder that the embedding store wrote.
      deltas: The folders of later changes, oldest first.

    Raises:
      ValueError: If they are damaged.
    """

    def __init__(
        self, directory: str | pathlib.Path, *deltas: str | pathlib.Path
    ) -> None:
        self._layers = [
            raw_layer.RawLayer(str(folder), with_state=False)
            for folder in (directory, *deltas)
        ]
        self._directory = self._layers[-1].directory
        self._manifest = self._layers[-1].manifest
        self._chunks = shared_reading.SharedReading(self._read)
        self.tables: dict[str, int] = {
            update_name(table): sum(part["dim"] for part in group["slices"])
            for group in self._manifest["groups"]
            for table in group["tables"]
        }
        self.largest: dict[str, np.ndarray] = {
            update_name(table): largest_served(table, group["slices"])
            for group in self._manifest["groups"]
            for table in group["tables"]
        }

    def updated(self, since_step: int) -> Iterator[Rows]:
        """Yields rows inserted or updated at a step or later, chunk by chunk.

        Raises:
          ServingError: If the checkpoint does not record when rows were updated.
          ValueError: If it is damaged.
        """
        groups = self._manifest["groups"]
        if not all("step" in group["stamps"] for group in groups):
            raise errors.ServingError(
                f"{self._directory} does not record when its rows were updated. Set "
                "`export.spare_rows`, train further, and publish the next checkpoint."
            )
        for group, chunk in self._chunks:
            changed = chunk.stamps["step"] >= since_step
            yield from by_table(group, chunk.ids[changed], chunk.weights[changed])

    def removed(self, since: "SavedRows") -> Iterator[Rows]:
        """Yields zeros for the ids that an earlier checkpoint has and this one lacks.

        Args:
          since: The earlier checkpoint.
        """
        before, now = since.ids(), self.ids()
        for table, dim in self.tables.items():
            ids = np.setdiff1d(before.get(table, []), now.get(table, []))
            if len(ids):
                zeros = np.broadcast_to(np.float32(0), (len(ids), dim))
                yield Rows(table, ids.astype(np.int64), zeros)

    def ids(self) -> dict[str, np.ndarray]:
        """Returns table -> its ids, `[n]`, int64; tables without ids are omitted."""
        found: dict[str, list[np.ndarray]] = {}
        for group, chunk in self._chunks:
            for rows in by_table(group, chunk.ids, chunk.weights):
                found.setdefault(rows.table, []).append(rows.ids)
        return {table: np.concatenate(ids) for table, ids in found.items()}

    def _read(self) -> Iterator[tuple[JsonMapping, Chunk]]:
        """Yields chunks with their groups, without optimizer state to save memory."""
        for group, chunk in merge.rows(self._layers):
            yield group.entry, chunk


def by_table(
    group: JsonMapping, ids: np.ndarray, weights: np.ndarray
) -> Iterator[Rows]:
    """Splits rows by the tables of a group; omits ids of other tables.

    Args:
      group: The manifest entry of the group.
      ids: `[n]`.
      weights: `[n, dim]`.
    """
    if any(map(_is_exact, group["tables"])):
        (table,) = group["tables"]
        if len(ids):
            yield Rows(update_name(table), ids, weights)
        return
    slots = ids >> HASH_BITS
    for table in group["tables"]:
        mine = slots == table["slot"]
        if mine.any():
            yield Rows(update_name(table), ids[mine], weights[mine])


def largest_served(table: JsonMapping, slices: list[JsonMapping]) -> np.ndarray:
    """Returns the largest numbers that a table's compressors hold, by column."""
    # Earlier checkpoints do not record it.
    largest = table.get("largest") or [None] * len(slices)
    limits = [np.inf if limit is None else limit for limit in largest]
    return np.repeat(np.array(limits, np.float32), [part["dim"] for part in slices])


def _is_exact(table: JsonMapping) -> bool:
    return table.get("large_integers") == "exact"


def update_name(table: JsonMapping) -> str:
    """Returns a table's name in `update_embeddings`."""
    return str(table["name"]) + (updates.EXACT if _is_exact(table) else "")
