"""The newest checkpoint of a job, to be published."""

import pathlib
import threading
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from monolith_tf import lineage as lineage_lib
from monolith_tf.export import flat_dense
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import row_sender
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import dense_variables
from monolith_tf.training import lineage_mark


class CheckpointSource:
    """A `source.PublishSource` of a job's newest checkpoint, read once for all servers.

    Attributes:
      step: Its step.
      newest: The same.
      lineage: The job's.

    Args:
      model_dir: The job's folder.

    Raises:
      ServingError: If the checkpoint does not record its job.
      ValueError: If there is no checkpoint, or it is damaged.
    """

    def __init__(self, model_dir: pathlib.Path) -> None:
        self._model_dir = model_dir
        self._checkpoints = checkpoint_dir.CheckpointDir(model_dir / "checkpoints")
        newest = self._checkpoints.latest()
        if newest is None:
            raise checkpoint_lib.CheckpointError(
                f"There is no checkpoint in {self._checkpoints.path}. Train first: "
                "`monolith-tf train CONFIG`."
            )
        self.lineage = lineage_lib.of_state(newest.manifest["state"])
        if not self.lineage.branches:
            raise errors.ServingError(
                f"{newest.path} does not record its job. Train further, export "
                "again, and publish the next checkpoint."
            )
        self._checkpoint = newest  # Keeps the checkpoint from being removed.
        self.step = self.newest = newest.step
        self._saved = changed_rows.SavedRows(*newest.embedding_layers)
        self._lock = threading.Lock()
        self._removed: dict[int, list[changed_rows.Rows] | None] = {}
        self._ids: dict[str, np.ndarray] | None = None
        self._dense: dict[str, np.ndarray] | None = None

    @property
    def tables(self) -> Mapping[str, int]:
        """See `PublishSource`."""
        return self._saved.tables

    @property
    def largest(self) -> Mapping[str, np.ndarray]:
        """See `PublishSource`."""
        return self._saved.largest

    def updated(self, since: int) -> Iterator[changed_rows.Rows]:
        """See `PublishSource`."""
        return self._saved.updated(since)

    def send(self, since: int, sender: row_sender.RowSender) -> None:
        """See `PublishSource`."""
        for rows in self.updated(since):
            sender.update(rows, self.largest[rows.table], self.newest)

    def removed(self, since: int) -> list[changed_rows.Rows] | None:
        """See `PublishSource`."""
        with self._lock:
            if since not in self._removed:
                self._removed[since] = self._find_removed(since)
            return self._removed[since]

    def dense(self) -> Mapping[str, np.ndarray]:
        """See `PublishSource`."""
        with self._lock:
            if self._dense is None:
                self._dense = dense_variables.values(
                    self._checkpoint, flat_dense.PREFIX
                )
            return self._dense

    def owns(self, branches: Iterable[str]) -> bool:
        """See `PublishSource`."""
        return lineage_mark.owns(self._model_dir, branches)

    def ids(self) -> Mapping[str, np.ndarray]:
        """See `PublishSource`."""
        with self._lock:
            if self._ids is None:
                found = self._saved.ids().items()
                self._ids = {table: np.sort(ids) for table, ids in found}
            return self._ids

    def _find_removed(self, since: int) -> list[changed_rows.Rows] | None:
        checkpoints = self._checkpoints
        names = {int(name.partition("-")[2]): name for name in checkpoints.names()}
        if since not in names:
            return None
        before = checkpoint_lib.open_checkpoint(checkpoints.path / names[since])
        saved = changed_rows.SavedRows(*before.embedding_layers)
        return list(self._saved.removed(saved))
