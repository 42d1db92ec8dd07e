"""The present values of a running job, to be published without a checkpoint."""

import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.marks import Mark
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.export import updates
from monolith_tf.lineage import Lineage
from monolith_tf.serving import remote_sending
from monolith_tf.serving.changed_rows import Rows
from monolith_tf.serving.row_sender import RowSender
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
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        store: EmbeddingStore,
        dense: Callable[[], dict[str, np.ndarray]],
        lineage: Lineage,
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
        self.model_dir = model_dir
        # Parameter servers send their rows themselves.
        self.is_remote = store.placement.devices is not None
        self._marked = -1
        self._store = store
        self._dense = dense
        self._marks: dict[int, Mark] = {}  # Step of published values -> their moment.

    def take(self, step: int, copied: Iterable[int]) -> "LiveSource":
        """Returns the present values.

        In one process, call it while no step is running. In a cluster, parameter
        servers read their rows when they send them; rows and dense weights may be of
        slightly different steps, as they are for the workers.

        Args:
          step: The steps taken so far.
          copied: Steps of servers for which the rows are copied now. Others read them
            when they are updated.
        """
        # What changes from here on is sent with the next values.
        mark = self._store.mark()
        wanted = () if self.is_remote else copied
        known = {at: self._marks[at] for at in wanted if at and at in self._marks}
        # Of two moments with the same number of steps, the first one is safe.
        self._marks.setdefault(step, mark)
        self.mark(step)
        rows: list[_Stamped] = []
        removed: list[Rows] = []
        if known:
            oldest = known[min(known)]
            rows = list(self._tables_of(self._store.changed(oldest)))
            removed = list(self._lost(oldest))
        return LiveSource(self, step, frozenset(known), rows, removed, self._dense())

    def keep(self, steps: Iterable[int]) -> None:
        """Forgets the moments of all steps but some, which servers may be at."""
        kept = set(steps)
        self._marks = {at: mark for at, mark in self._marks.items() if at in kept}

    def updated(self, since: int) -> Iterator[_Stamped]:
        """Yields rows updated since a step, 0 for all; steps may be running."""
        mark = self._marks.get(since) if since else None
        if mark is not None:
            return self._tables_of(self._store.changed(mark))
        return self._tables_of(self._store.touched(since, with_removals=False))

    def send(
        self, since: int, sender: RowSender, on_newest: Callable[[int], None]
    ) -> None:
        """Lets the parameter servers send their rows; see `remote_sending.send`."""
        mark = self._marks.get(since) if since else None
        at = since if mark is None else mark
        remote_sending.send(self._store, at, sender, on_newest)

    def removed(self, since: int) -> list[Rows] | None:
        """Returns zeros for ids that lost their row since a step, if known."""
        mark = self._marks.get(since) if since else None
        return None if mark is None else list(self._lost(mark))

    def mark(self, newest: int) -> None:
        """Notes on the disk that servers may get values of a step.

        A job that resumes from an earlier step then knows that it went back.
        """
        if newest > self._marked:
            lineage_mark.write(self.model_dir, self.lineage, newest)
            self._marked = newest

    def ids(self) -> dict[str, np.ndarray]:
        """Returns table -> the ids that have a row, `[n]`, int64, sorted."""
        found: dict[str, list[np.ndarray]] = {}
        for group, ids in self._store.ids():
            nothing = np.broadcast_to(np.float32(0), (len(ids), group.dim))
            for rows, _ in _by_table(group, ids, nothing):
                found.setdefault(rows.table, []).append(rows.ids)
        return {table: np.sort(np.concatenate(ids)) for table, ids in found.items()}

    def _tables_of(self, chunks: Iterable[tuple[Group, Chunk]]) -> Iterator[_Stamped]:
        for group, chunk in chunks:
            steps = chunk.stamps["step"]
            for rows, mine in _by_table(group, chunk.ids, chunk.weights):
                yield _Stamped(rows, steps[mine])

    def _lost(self, since: Mark) -> Iterator[Rows]:
        for group, ids in self._store.lost(since):
            nothing = np.broadcast_to(np.float32(0), (len(ids), group.dim))
            for rows, _ in _by_table(group, ids, nothing):
                yield rows


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
        copied: frozenset[int],
        rows: list[_Stamped],
        removed: list[Rows],
        dense: Mapping[str, np.ndarray],
    ) -> None:
        self.step = self.newest = step
        self._live = live
        self._copied = copied
        self._rows = rows
        self._removed = removed
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
        found = self._rows if since in self._copied else self._live.updated(since)
        for rows, steps in found:
            if len(steps):
                self._note(int(steps.max()) + 1)
                yield rows

    def send(self, since: int, sender: RowSender) -> None:
        """See `PublishSource`."""
        if self._live.is_remote:
            self._live.send(since, sender, self._note)
            return
        for rows in self.updated(since):
            sender.update(rows, self.largest[rows.table], self.newest)

    def _note(self, newest: int) -> None:
        """Notes that a server gets values of a step, before it gets them."""
        self.newest = max(self.newest, newest)
        self._live.mark(self.newest)

    def removed(self, since: int) -> list[Rows] | None:
        """See `PublishSource`."""
        return self._removed if since in self._copied else self._live.removed(since)

    def dense(self) -> Mapping[str, np.ndarray]:
        """See `PublishSource`."""
        return self._dense

    def owns(self, branches: Iterable[str]) -> bool:
        """See `PublishSource`."""
        return lineage_mark.owns(self._live.model_dir, branches)

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
