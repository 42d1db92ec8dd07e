"""Sends rows to a model server: for the chief, and in the parameter servers."""

import numpy as np

from monolith_tf.serving import guard as guard_lib
from monolith_tf.serving import undo_log
from monolith_tf.serving import update_client
from monolith_tf.serving.changed_rows import Rows


class RowSender:
    """Replaces rows on a model server, in requests of bounded size.

    Attributes:
      client: A client of the server.
      chunk_bytes: Bytes per request.
      is_guarded: Whether rows that are not finite are refused.
      undo: Keeps what is replaced; None keeps nothing.
      counts: Rows `updated`, ids `removed`, ids `inserted` that took a spare row, and
        rows `clipped`.
    """

    def __init__(
        self, client: update_client.UpdateClient, *, chunk_bytes: int, is_guarded: bool
    ) -> None:
        self.client = client
        self.chunk_bytes = chunk_bytes
        self.is_guarded = is_guarded
        self.undo: undo_log.Keeper | None = None
        self.counts = {"updated": 0, "removed": 0, "inserted": 0, "clipped": 0}

    def update(self, rows: Rows, largest: np.ndarray, newest: int) -> None:
        """Sends rows.

        Args:
          rows: The rows.
          largest: The largest numbers that can be served, `[dim]`; others are clipped.
          newest: The newest step of any row so far.

        Raises:
          RefusedError: If a row is not finite, and `is_guarded`.
          Exception: As `UpdateClient.update`.
        """
        rows, beyond = rows.clipped(largest)
        self.counts["clipped"] += beyond
        for piece in rows.split(self.chunk_bytes):
            self.counts["inserted"] += self._replace(piece, newest)
            self.counts["updated"] += len(piece.ids)

    def remove(self, rows: Rows, newest: int) -> None:
        """Sends zeros, as `update`."""
        for piece in rows.split(self.chunk_bytes):
            self._replace(piece, newest)
            self.counts["removed"] += len(piece.ids)

    def _replace(self, rows: Rows, newest: int) -> int:
        """Sends rows; returns how many ids took a spare row."""
        if self.is_guarded and not np.isfinite(rows.weights).all():
            place = int(np.nonzero(~np.isfinite(rows.weights).all(axis=1))[0][0])
            raise guard_lib.RefusedError(
                f"the row of id {rows.ids[place]} of table `{rows.table}` is not finite"
            )
        if self.undo is not None:
            self.undo.add(self.client.read(rows.table, rows.ids))
        self.client.newest = max(self.client.newest, newest)
        return self.client.update(rows).inserted
