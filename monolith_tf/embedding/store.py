"""The partitioned embedding store."""

import itertools
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import numpy as np

from monolith_tf.embedding import step_store
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.frozen.store import RowChunk
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import restore
from monolith_tf.embedding.saved import write
from monolith_tf.embedding.saved.chain import Chain
from monolith_tf.embedding.shard import maintenance
from monolith_tf.embedding.shard import sizing
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec


class EmbeddingStore(step_store.StepStore):
    """Embedding tables with one row per id and no collisions, spread over shards.

    A training step calls `lookup`, watches `Pulled.rows`, calls `combine`, and passes
    the gradients to `apply_gradients`; all of this can run in one `tf.function`. Call
    `maintain` between steps.

    `tf.train.Checkpoint` does not see the rows: `save` and `restore` write and read
    them by id.

    Attributes:
      tables: The tables, in the order that all counters use.
      columns: The features that read them.
      placement: Number of shards and their devices.
      groups: The tables, merged into groups with the same row layout.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
      seed: Seed of the initial values.
      placement: Number of shards and their devices; one in this process by default.
      mode: "exact": updates of one shard run one at a time, so no update of a row is
        lost. "hogwild": they run concurrently, and when several workers update one row
        at the same moment, some of those updates may be lost.
      capacity: Rows that each shard of a group of tables first has room for. The shard
        grows on demand, during steps too. By default as many rows as fit in a 32nd of
        this machine's memory; memory is allocated as rows are written.
      track_updates: Whether to keep the step of every row's last update. Saving and
        publishing only the rows that changed since a step needs it.

    Raises:
      ValueError: If names or slots repeat, a table has no slot, or a column names a
        missing table.
    """

    def __init__(
        self,
        tables: Sequence[TableSpec],
        columns: Sequence[ColumnSpec],
        *,
        seed: int = 0,
        placement: Placement | None = None,
        mode: Literal["exact", "hogwild"] = "exact",
        capacity: int | None = None,
        track_updates: bool = False,
    ) -> None:
        super().__init__(
            tables,
            columns,
            seed=seed,
            placement=placement,
            mode=mode,
            capacity=capacity,
            track_updates=track_updates,
        )
        self._tracked_since = 0
        # Step and id of the checkpoints saved and restored, which a delta may follow.
        self._saved: list[tuple[int, str]] = []

    def maintain(
        self, step: int | None = None, now_secs: float | None = None
    ) -> maintenance.MaintenanceReport:
        """Drops rows that are too old or too many, and makes room for new ones.

        Call it from time to time; steps may run concurrently. Limits are enforced only
        here, so a table may exceed one between calls.

        Args:
          step: The global step; required by tables that expire by steps.
          now_secs: Seconds since 1970; the current time by default.

        Raises:
          TableFullError: If a table without eviction is over a limit, or memory runs
            out.
        """
        now_secs = time.time() if now_secs is None else float(now_secs)
        return maintenance.maintain(
            self._shards, None if step is None else int(step), now_secs
        )

    def describe(self) -> list[sizing.TableInfo]:
        """Returns size and devices of every table, in the order of `tables`."""
        counters = self.table_counters()
        devices = tuple(map(self.placement.device, range(self.placement.num_shards)))
        return [
            sizing.TableInfo(
                name=table.name,
                slot=table.slot or 0,
                dim=table.row_dim,
                rows=counters[table.name]["rows"],
                bytes=counters[table.name]["bytes"],
                devices=devices,
            )
            for table in self.tables
        ]

    def save(
        self,
        directory: str,
        *,
        step: int | None = None,
        now_secs: float | None = None,
        since_step: int | None = None,
    ) -> dict[str, Any]:
        """Writes all rows in use, with optimizer state and bookkeeping.

        Needs extra memory for one chunk at most. The manifest is written last; a
        directory without one is not a checkpoint.

        Args:
          directory: A new or empty directory.
          step: The global step.
          now_secs: Seconds since 1970; the current time by default.
          since_step: Writes only what changed since the checkpoint of this step. Such a
            delta is restored on top of that checkpoint, or of a later one that this
            store wrote or was restored from. The store must track updates.

        Returns:
          The manifest.

        Raises:
          ValueError: If `directory` holds a checkpoint, or the changes since
            `since_step` are not known.
        """
        if since_step is not None:
            self._check_tracked(since_step)
        manifest = write.save(
            directory,
            self._shards,
            step=step,
            now_secs=now_secs,
            since_step=since_step,
            follows=[id_ for at, id_ in self._saved if at >= (since_step or 0)],
        )
        self._note(step, manifest["id"])
        return manifest

    def restore(
        self,
        directory: str,
        *,
        deltas: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        with_optimizer_state: bool = True,
        keep_others: bool = False,
    ) -> restore.RestoreReport:
        """Replaces all rows with those of a checkpoint of any number of shards.

        Tables and slices missing from the checkpoint start with initial values; those
        missing from the store are skipped.

        Args:
          directory: Directory of the checkpoint.
          deltas: Directories of later deltas, oldest first.
          aliases: Saved table name -> table name; by default they are the same.
          with_optimizer_state: Whether to read optimizer state too.
          keep_others: Whether to keep rows that the checkpoint lacks, for example of
            tables that were restored from another one.

        Raises:
          ValueError: If the checkpoint is damaged or does not fit the tables, or a
            delta does not follow the one before; the store is then unchanged. But if a
            file changes while it is read, the store is then empty; with `keep_others`
            it may hold rows of the checkpoint.
        """
        chain = Chain(
            directory,
            self.groups,
            seed=self._seed,
            deltas=deltas,
            aliases=aliases,
            with_optimizer_state=with_optimizer_state,
        )
        report = restore.restore(chain, self._shards, keep_others=keep_others)
        self._tracked_since = report.step or 0
        if not keep_others:
            self._saved = []
        self._note(report.step, chain.newest.manifest.get("id"))
        return report

    def touched(self, since_step: int) -> Iterator[tuple[layout.Group, Chunk]]:
        """Yields rows inserted or updated since a step, in chunks, without state.

        Args:
          since_step: The first step. The store must track updates.

        Raises:
          ValueError: If the changes since then are not known.
        """
        self._check_tracked(since_step)
        for shard in itertools.chain(*self._shards.values()):
            size = write.chunk_rows(shard.group)
            for chunk in shard.chunks(size, with_state=False, since_step=since_step):
                yield shard.group, chunk

    def removed(self, since_step: int) -> np.ndarray:
        """Returns ids that lost their row since a step; some may have one again.

        Args:
          since_step: The first step. The store must track updates.

        Raises:
          ValueError: If the changes since then are not known.
        """
        self._check_tracked(since_step)
        shards = list(itertools.chain(*self._shards.values()))
        return np.concatenate([write.removed(s, since_step) for s in shards])

    def forget_removed(self, before_step: int) -> None:
        """Frees the memory of ids that were removed before a step.

        Args:
          before_step: Changes since an earlier step are no longer known afterwards.
        """
        for shard in itertools.chain(*self._shards.values()):
            shard.removed = [
                entry for entry in shard.removed if entry[0] >= before_step
            ]
        self._tracked_since = max(self._tracked_since, before_step)
        self._saved = [entry for entry in self._saved if entry[0] >= before_step]

    def rows(self) -> Iterator[RowChunk]:
        """Yields ids and weights of all rows in use, in chunks."""
        for shard in itertools.chain(*self._shards.values()):
            size = write.chunk_rows(shard.group)
            for chunk in shard.chunks(size, with_state=False):
                yield RowChunk.of_group(shard.group, chunk)

    def freeze(self) -> FrozenStore:
        """Returns a read-only copy in memory."""
        frozen = FrozenStore(self.tables, self.columns)
        frozen.fill(self.rows())
        return frozen

    def _note(self, step: int | None, id_: str | None) -> None:
        if step is not None and id_ is not None:
            self._saved.append((step, id_))

    def _check_tracked(self, since_step: int) -> None:
        if not self.groups[0].tracks_updates:
            raise ValueError(
                "`track_updates` must be True to tell what changed. "
                f"Received: since_step={since_step}, track_updates=False."
            )
        if since_step < self._tracked_since:
            raise ValueError(
                f"`since_step` must be at least {self._tracked_since}, since which "
                f"removals are known. Received: since_step={since_step}. Write a full "
                "checkpoint."
            )
