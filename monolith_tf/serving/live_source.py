"""The present values of a running job, to be published without a checkpoint."""

import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.export import updates
from monolith_tf.lineage import Lineage
from monolith_tf.serving import changed_rows
from monolith_tf.serving.changed_rows import Rows
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import lineage_mark


class _Stamped(NamedTuple):
    """Rows of one table, with the step of each row's last update, `[n]`."""

    rows: Rows
    steps: np.ndarray


class LiveRows:
    """The rows of a running job.

    Args:
      model_dir: The job's folder.
      store: Its store, which tracks updates.
      dense: Returns the present values of its dense variables, by path.
      lineage: Its lineage.
      checkpoints: Its checkpoints.
      resumed: The step at which this run began.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        store: EmbeddingStore,
        dense: Callable[[], dict[str, np.ndarray]],
        lineage: Lineage,
        checkpoints: checkpoint_dir.CheckpointDir,
        resumed: int,
    ) -> None:
        self.lineage = lineage
        self.tables = {
            updates.update_name(table): table.row_dim for table in store.tables
        }
        self.largest = {
            updates.update_name(table): np.repeat(
                np.array([part.largest_served for part in table.row_slices()], "f4"),
                [part.dim for part in table.row_slices()],
            )
            for table in store.tables
        }
        self._model_dir = model_dir
        self._marked = -1
        self._store = store
        self._dense = dense
        self._checkpoints = checkpoints
        self._resumed = resumed

    def take(self, step: int, since: int) -> "LiveSource":
        """Returns the present values; call it while no step is running.

        Args:
          step: The steps taken so far.
          since: Rows that were updated at this step or later are copied now; earlier
            ones are read when a server needs them.
        """
        self.mark(step)
        taken = list(self.updated(since))
        return LiveSource(self, step, since, taken, self._dense())

    def updated(self, since: int) -> Iterator[_Stamped]:
        """Yields rows that were updated at a step or later; steps may be running."""
        for group, chunk in self._store.touched(since, with_removals=False):
            steps = chunk.stamps["step"]
            for rows, mine in _by_table(group, chunk.ids, chunk.weights):
                yield _Stamped(rows, steps[mine])

    def mark(self, newest: int) -> None:
        """Notes on the disk that servers may get values of a step.

        A job that resumes from an earlier step then knows that it went back.
        """
        if newest > self._marked:
            lineage_mark.write(self._model_dir, self.lineage, newest)
            self._marked = newest

    def ids(self) -> dict[str, np.ndarray]:
        """Returns table -> the ids that have a row, `[n]`, int64, sorted."""
        found: dict[str, list[np.ndarray]] = {}
        for rows, _ in self.updated(0):
            found.setdefault(rows.table, []).append(rows.ids)
        return {table: np.sort(np.concatenate(ids)) for table, ids in found.items()}

    def removed(self, since: int) -> list[Rows] | None:
        """Returns zeros for ids that lost their row at a step or later, if known."""
        if since < self._resumed:
            before = self._removed_before(since)
            return None if before is None else [*before, *self._lost(self._resumed)]
        return list(self._lost(since))

    def _lost(self, since: int) -> Iterator[Rows]:
        for group, ids in self._store.lost(since):
            nothing = np.broadcast_to(np.float32(0), (len(ids), group.dim))
            for rows, _ in _by_table(group, ids, nothing):
                yield rows

    def _removed_before(self, since: int) -> list[Rows] | None:
        """Returns zeros for ids that lost their row before this run, if known."""
        saved = (self._saved(step) for step in (since, self._resumed))
        before, after = saved
        if before is None or after is None:
            return None
        return list(after.removed(before))

    def _saved(self, step: int) -> changed_rows.SavedRows | None:
        """Returns the rows of the checkpoint of a step, if there is one."""
        for name in self._checkpoints.names():
            if int(name.partition("-")[2]) == step:
                found = checkpoint_lib.open_checkpoint(self._checkpoints.path / name)
                return changed_rows.SavedRows(*found.embedding_layers)
        return None


class LiveSource:
    """A `source.PublishSource` of the values that a job had at one step.

    A server whose step is older than what was copied receives the present rows, which
    may be newer than the step.

    Attributes:
      step: The step.
      newest: See `PublishSource`.
    """

    def __init__(
        self,
        live: LiveRows,
        step: int,
        since: int,
        taken: list[_Stamped],
        dense: Mapping[str, np.ndarray],
    ) -> None:
        self.step = self.newest = step
        self._live = live
        self._since = since
        self._taken = taken
        self._dense = dense

    @property
    def lineage(self) -> Lineage:
        """See `PublishSource`."""
        return self._live.lineage

    @property
    def tables(self) -> Mapping[str, int]:
        """See `PublishSource`."""
        return self._live.tables

    @property
    def largest(self) -> Mapping[str, np.ndarray]:
        """See `PublishSource`."""
        return self._live.largest

    def updated(self, since: int) -> Iterator[Rows]:
        """See `PublishSource`."""
        taken: Iterable[_Stamped] = self._taken
        if since < self._since:
            taken = self._live.updated(since)
        for rows, steps in taken:
            mine = steps >= since
            if mine.any():
                self.newest = max(self.newest, int(steps.max()) + 1)
                self._live.mark(self.newest)
                yield Rows(rows.table, rows.ids[mine], rows.weights[mine])

    def removed(self, since: int) -> list[Rows] | None:
        """See `PublishSource`."""
        return self._live.removed(since)

    def dense(self) -> Mapping[str, np.ndarray]:
        """See `PublishSource`."""
        return self._dense

    def ids(self) -> dict[str, np.ndarray]:
        """See `PublishSource`."""
        return self._live.ids()


def _by_table(
    group: Group, ids: np.ndarray, weights: np.ndarray
) -> Iterator[tuple[Rows, np.ndarray]]:
    """Yields the rows of each table of a group, and which rows these are, `[n]`."""
    slots = group.slots_of(ids)
    for table in group.tables:
        mine = slots == (table.slot or 0)
        if mine.any():
            yield Rows(updates.update_name(table), ids[mine], weights[mine]), mine
