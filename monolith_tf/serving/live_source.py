"""The present values of a running job, to be published without a checkpoint."""

import pathlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from absl import logging

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.export import updates
from monolith_tf.lineage import Lineage
from monolith_tf.serving import changed_rows
from monolith_tf.serving import sent_log
from monolith_tf.serving.changed_rows import Rows
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir


class _Stamped(NamedTuple):
    """Rows of one table, with the step of each row's last update, `[n]`."""

    rows: Rows
    steps: np.ndarray


class LiveRows:
    """The rows of a running job.

    Args:
      model_dir: The job's folder.
      store: Its store, which tracks updates.
      lineage: Its lineage.
      checkpoints: Its checkpoints.
      resumed: The step at which this run began.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        store: EmbeddingStore,
        lineage: Lineage,
        checkpoints: checkpoint_dir.CheckpointDir,
        resumed: int,
    ) -> None:
        self.lineage = lineage
        self.log = sent_log.SentLog(model_dir, lineage)
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
        self._store = store
        self._checkpoints = checkpoints
        self._resumed = resumed

    def take(self, step: int, since: int) -> "LiveSource":
        """Returns the present values; call it while no step is running.

        Args:
          step: The steps taken so far.
          since: Rows that were updated at this step or later are copied now; earlier
            ones are read when a server needs them.
        """
        return LiveSource(self, step, since, list(self.updated(since)))

    def updated(self, since: int) -> Iterator[_Stamped]:
        """Yields rows that were updated at a step or later; steps may be running."""
        for group, chunk in self._store.touched(since, with_removals=False):
            steps = chunk.stamps["step"]
            for rows, mine in _by_table(group, chunk.ids, chunk.weights):
                yield _Stamped(rows, steps[mine])

    def removed(self, since: int) -> Iterator[Rows]:
        """Yields zeros for ids that lost their row at a step or later."""
        for group, ids in self._store.lost(max(since, self._resumed)):
            nothing = np.broadcast_to(np.float32(0), (len(ids), group.dim))
            for rows, _ in _by_table(group, ids, nothing):
                yield rows
        if since < self._resumed:
            yield from self._removed_before(since)

    def _removed_before(self, since: int) -> Iterator[Rows]:
        """Yields zeros for ids that lost their row between two checkpoints."""
        names = {
            int(name.partition("-")[2]): name for name in self._checkpoints.names()
        }
        if since not in names or self._resumed not in names:
            logging.warning(
                "The checkpoint of step %d no longer exists: ids that were removed "
                "since then are served until the next full version.",
                since if since not in names else self._resumed,
            )
            return
        before, after = (
            checkpoint_lib.open_checkpoint(self._checkpoints.path / names[step])
            for step in (since, self._resumed)
        )
        saved = changed_rows.SavedRows(after.embedding_dir)
        yield from saved.removed(changed_rows.SavedRows(before.embedding_dir))


class LiveSource:
    """A `source.PublishSource` of the values that a job had at one step.

    A server whose step is older than what was copied receives the present rows, which
    may be newer than the step.

    Attributes:
      step: The step.
      newest: See `PublishSource`.
    """

    def __init__(
        self, live: LiveRows, step: int, since: int, taken: list[_Stamped]
    ) -> None:
        self.step = self.newest = step
        self._live = live
        self._since = since
        self._taken = taken

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
        """See `PublishSource`; the ids are on the disk before they are yielded."""
        taken: Iterable[_Stamped] = self._taken
        if since < self._since:
            taken = self._live.updated(since)
        for rows, steps in taken:
            mine = steps >= since
            if mine.any():
                self.newest = max(self.newest, int(steps.max()) + 1)
                found = Rows(rows.table, rows.ids[mine], rows.weights[mine])
                yield self._recorded(found)

    def removed(self, since: int) -> Iterator[Rows]:
        """See `PublishSource`; the ids are on the disk before they are yielded."""
        for rows in self._live.removed(since):
            yield self._recorded(rows)

    def _recorded(self, rows: Rows) -> Rows:
        self._live.log.add(rows.table, rows.ids, self.newest)
        return rows


def _by_table(
    group: Group, ids: np.ndarray, weights: np.ndarray
) -> Iterator[tuple[Rows, np.ndarray]]:
    """Yields the rows of each table of a group, and which rows these are, `[n]`."""
    slots = group.slots_of(ids)
    for table in group.tables:
        mine = slots == (table.slot or 0)
        if mine.any():
            yield Rows(updates.update_name(table), ids[mine], weights[mine]), mine
