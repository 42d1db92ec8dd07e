"""The partitioned embedding store."""

import itertools
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.frozen.store import RowChunk
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.lookup import routing
from monolith_tf.embedding.lookup.pulled import Pulled
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import restore
from monolith_tf.embedding.saved import write
from monolith_tf.embedding.saved.chain import Chain
from monolith_tf.embedding.saved.history import History
from monolith_tf.embedding.saved.live_copy import LiveCopy
from monolith_tf.embedding.shard import counters
from monolith_tf.embedding.shard import maintenance
from monolith_tf.embedding.shard import sizing
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.clock import Clock
from monolith_tf.embedding.shard.clock import clock_for
from monolith_tf.embedding.shard.group_step import GroupStep
from monolith_tf.embedding.shard.marks import Mark
from monolith_tf.embedding.shard.marks import Marks
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.shard.shard_rows import ShardRows
from monolith_tf.embedding.shard.shard_rows import Which
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor


class EmbeddingStore(tf.Module):
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
      track_updates: Whether to keep when every row was last updated. Saving and
        publishing only the rows that changed since then needs it.

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
        super().__init__(name="embedding_store")
        if mode not in ("exact", "hogwild"):
            raise ValueError(
                f"`mode` must be 'exact' or 'hogwild'. Received: mode={mode!r}."
            )
        self._setattr_tracking = False  # Checkpoints must not see the rows.
        self.tables = tuple(tables)
        self.columns = tuple(columns)
        self.placement = placement or Placement()
        self.groups = layout.merge_tables(self.tables, tracks_updates=track_updates)
        self._seed = seed
        self._router = routing.Router(self.groups, self.columns)
        self._shards = {
            group.name: tuple(
                Shard(
                    group,
                    device=self.placement.device(number),
                    seed=seed,
                    capacity=capacity
                    or sizing.capacity(group, self.groups, self.placement),
                )
                for number in range(self.placement.num_shards)
            )
            for group in self.groups
        }
        is_local = self.placement.devices is None
        self._steps = {
            name: GroupStep(shards, is_exact=mode == "exact", is_local=is_local)
            for name, shards in self._shards.items()
        }
        self._tracks_updates = track_updates
        self._history = History(is_tracked=track_updates)
        self._marks = Marks(self._shards)

    @tf.autograph.experimental.do_not_convert
    def lookup(
        self,
        ids: Mapping[str, Any],
        *,
        training: bool,
        step: Tensor | None = None,
        now_secs: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Pulled:
        """Finds the rows of a batch's ids.

        Args:
          ids: Feature -> ids, `[batch]` or ragged `[batch, None]`, int64, all with the
            same batch size; use separate lookups for other batch sizes. The upper 16
            bits of an id hold the slot of its table, set by `ids.with_slot`; only a
            table of exact integers takes any int64 as it is. The slot selects the row,
            not the feature: an id with the slot of another table of the same group
            reads and trains that table's row, and counts there. An id with the slot of
            a table in another group has no row.
          training: Whether to count ids without a row and insert rows for them.
            Otherwise nothing changes, and they read zeros.
          step: The global step; required in training if a table needs it.
          now_secs: Seconds since 1970, for tables that expire by days; by default the
            clock of the machine that runs the step.
          batch: Number of a batch that may come again, at least 0. The first time, its
            ids are counted and get rows, and its gradients are applied; later nothing
            changes. Each shard decides that by itself. See `forget_batches`.

        Returns:
          The rows, with what `combine` and `apply_gradients` need.

        Raises:
          tf.errors.InvalidArgumentError: If an id to insert has a slot that no table in
            the group of its feature's table has.
        """
        distinct, splits = self._router.distinct(ids)
        secs: Any = ()
        if training and any(group.keeps_secs for group in self.groups):
            secs = tf.timestamp() if now_secs is None else now_secs
            secs = tf.cast(secs, tf.int64)
        rows, shards = {}, {}
        number: Any = () if batch is None else tf.cast(batch, tf.int64)
        for name, ids_of in distinct.items():
            if training:
                clock = clock_for(self._router.groups[name], step, secs, number)
                rows[name], shards[name] = self._steps[name].pull(ids_of, clock)
            else:
                rows[name] = self._steps[name].read(ids_of)
        inverses = {name: ids_of.inverse for name, ids_of in distinct.items()}
        return Pulled(rows, inverses, splits, shards, secs, number)

    @tf.autograph.experimental.do_not_convert
    def combine(self, pulled: Pulled) -> dict[str, dict[str, Any]]:
        """Returns the embeddings: feature -> slice name -> tensor.

        Shapes are `[batch, dim]`; `[batch, max_length, dim]` with "first_n", ragged
        with "none".
        """
        return self._router.combine(pulled.rows, pulled.inverses, pulled.splits)

    @tf.autograph.experimental.do_not_convert
    def masks(self, pulled: Pulled) -> dict[str, Tensor]:
        """Returns a mask `[batch, max_length]` of each "first_n" feature's ids."""
        return self._router.masks(pulled.splits)

    @tf.autograph.experimental.do_not_convert
    def apply_gradients(
        self,
        pulled: Pulled,
        gradients: Mapping[str, Any],
        step: Tensor,
        rate_scale: Tensor | None = None,
    ) -> None:
        """Updates the rows that a training lookup found.

        Args:
          pulled: The result of that lookup.
          gradients: Group name -> gradient of `pulled.rows`; groups with None or
            without an entry are not updated. A row whose gradient is not finite is not
            updated either, and counts as `dropped`.
          step: The global step, 0 at the first update.
          rate_scale: Factor of all learning rates; None is 1.
        """
        now = tf.cast(tf.convert_to_tensor(step), tf.int64)
        clock = Clock(now, pulled.secs, pulled.batch)
        # Read a variable once, before the shards take their locks: functions under two
        # locks must not both hold it.
        scale: Any = () if rate_scale is None else tf.convert_to_tensor(rate_scale)
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            if name not in pulled.shards:
                raise ValueError(
                    "`pulled` must be what a lookup in training returned, and "
                    "`gradients` those of its rows. "
                    f"Received: gradients of {name!r}; pulled {list(pulled.shards)}."
                )
            self._steps[name].push(
                pulled.rows[name], pulled.shards[name], gradient, clock, scale
            )

    def forget_batches(self, before: int) -> None:
        """Frees the memory of batches before a number.

        They change nothing from now on, even if they have not come yet.

        Args:
          before: The smallest number of a batch that may still be new.
        """
        for shard in itertools.chain(*self._shards.values()):
            shard.forget_batches(before)

    @tf.autograph.experimental.do_not_convert
    def counters(self) -> dict[str, Tensor]:
        """Returns counter -> `[tables]`, int64, in the order of `tables`.

        The counters are `rows` in use; rows `inserted`; ids `refused` because they are
        not admitted yet, once per step; ids without room, `overflow`; row gradients
        `dropped` because the id has no row or the gradient is not finite; rows
        `expired` and `evicted`.
        """
        return counters.in_graph(self.tables, self._shards)

    def table_counters(self) -> dict[str, dict[str, int]]:
        """Returns each table's counters as Python numbers.

        Reads one small variable per shard, also while steps are running.

        Returns:
          Table name -> counter -> number: those of `counters`, and `bytes`, an estimate
          of the memory of the rows with optimizer state, bookkeeping and index.
        """
        return counters.of_tables(self.tables, self._shards)

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
        return sizing.describe(self.tables, self.table_counters(), self.placement)

    def save(
        self,
        directory: str,
        *,
        step: int | None = None,
        now_secs: float | None = None,
        since_step: int | None = None,
        since: Mark | None = None,
        with_all_counts: bool = False,
    ) -> dict[str, Any]:
        """Writes all rows in use, with optimizer state and bookkeeping.

        The processes that hold the rows write them, side by side, and need extra memory
        for one chunk at most. They must find `directory` under the same path. The
        manifest is written last; a directory without one is not a checkpoint.

        Args:
          directory: A new or empty directory.
          step: The global step.
          now_secs: Seconds since 1970; the current time by default.
          since_step: Writes only what changed since the checkpoint of this step. Such a
            delta is restored on top of that checkpoint, or of a later one that this
            store wrote or was restored from. The store must track updates.
          since: Writes only what changed since this mark. Such a delta is restored on
            top of the last checkpoint that the store wrote or was restored from before
            the mark, if nothing changed in between, or of any later one.
          with_all_counts: Whether a delta since a mark holds all counts of ids that
            wait for admission, not only those that changed.

        Returns:
          The manifest.

        Raises:
          ValueError: If `directory` holds a checkpoint, or the changes since
            `since_step` or `since` are not known.
          FileNotFoundError: If a parameter server does not find the directory.
        """
        delta: write.Since | None = None
        if since is not None:
            self._check_mark(since)
            delta = write.Since(
                min((at for at, _ in since.saved), default=0),
                [id_ for _, id_ in since.saved],
                since.periods,
            )
        elif since_step is not None:
            self._history.check(since_step)
            delta = write.Since(since_step, self._history.saved_since(since_step))
        counts: Literal["whole", "changed"] = "whole" if with_all_counts else "changed"
        what = write.What(delta, counts, token=self.placement.token)
        return self._write(directory, what, step, now_secs)

    def copy(self, directory: str, *, step: int) -> LiveCopy:
        """Begins to write all rows while steps run.

        With `save(..., since=copy.mark, with_all_counts=True)` on top, which is written
        while no step runs, it is a checkpoint of that moment. Steps do not wait for the
        copy, which is written by the processes that hold the rows.

        Args:
          directory: A new or empty directory.
          step: The global step.

        Raises:
          ValueError: If `directory` holds a checkpoint, or the store does not track
            updates.
        """
        mark = self.mark()
        what = write.What(admission="no", is_live=True, token=self.placement.token)

        def work(stop: threading.Event) -> None:
            manifest = write.save(
                directory, self._shards, what, step=step, now_secs=None, stop=stop
            )
            # Only the changes since its own mark make a checkpoint of it.
            mark.saved.append((step, manifest["id"]))

        return LiveCopy(directory, mark, work)

    @property
    def tracks_updates(self) -> bool:
        """Whether `mark` and what needs it can be used."""
        return self._tracks_updates

    def _write(
        self,
        directory: str,
        what: write.What,
        step: int | None,
        now_secs: float | None,
    ) -> dict[str, Any]:
        manifest = write.save(
            directory, self._shards, what, step=step, now_secs=now_secs
        )
        self._note_saved(step, manifest["id"])
        return manifest

    def _note_saved(self, step: int | None, id_: str | None) -> None:
        """Notes a checkpoint that was written or restored."""
        self._history.add(step, id_)
        if step is not None and id_ is not None:
            for mark in self._marks.used():
                mark.saved.append((step, id_))

    def mark(self) -> Mark:
        """Returns the present moment, for `changed`, `removed` and `save`.

        Steps may run meanwhile. All that changes afterwards is since the mark; what is
        being written at this moment may be. Ids that lost their row are remembered
        since the oldest mark in use: release a mark, or drop it, when it is no longer
        needed. Once marks were made, removals before them are unknown by step too.

        Raises:
          ValueError: If the store does not track updates.
        """
        self._check_tracked()
        mark, last_step = self._marks.make(self._history.last())
        if last_step >= 0:
            self._history.forget(last_step + 1)
        return mark

    def _check_tracked(self) -> None:
        if not self._tracks_updates:
            raise ValueError(
                "`track_updates` must be True to tell what changed. "
                "Received: track_updates=False."
            )

    def _check_mark(self, since: Mark) -> None:
        self._check_tracked()
        self._marks.check(since)

    def changed(
        self, since: Mark, *, with_state: bool = False
    ) -> Iterator[tuple[layout.Group, Chunk]]:
        """Yields rows inserted, updated or restored since a mark, in chunks.

        Steps may run meanwhile; in a "hogwild" store a row that is read while it is
        written may mix both, and is since any mark made in between.

        Args:
          since: The mark.
          with_state: Whether optimizer state is read too.

        Raises:
          ValueError: If the mark is not in use here.
        """
        self._check_mark(since)
        for name, shards in self._shards.items():
            for place, shard in enumerate(shards):
                which = Which("changed", since.periods[name][place])
                rows = ShardRows(shard, which, with_state=with_state)
                for chunk in rows.chunks(write.chunk_rows(shard.group)):
                    yield shard.group, chunk

    def sending(
        self, function: Callable[..., Any], since: Mark | int, *arguments: object
    ) -> dict[str, Iterator[np.ndarray]]:
        """Returns device -> iterator that calls a function in the device's process.

        Each call is `function(*arguments, device, group, ids, weights, state, *stamps)`
        with some of the rows that changed and are on the device; the rows do not leave
        its process. Steps may run meanwhile.

        Args:
          function: A function for `remote.call`, which returns int64.
          since: A mark, or the first step. The store must track updates.
          *arguments: Its first arguments.

        Raises:
          ValueError: If the mark is not in use here.
        """
        if isinstance(since, Mark):
            self._check_mark(since)
            delta = write.Since(0, periods=since.periods)
        else:
            delta = write.Since(since)
        devices = {shard.device for shard in itertools.chain(*self._shards.values())}
        return {
            device: self._sending_from(device, function, delta, arguments)
            for device in sorted(devices)
        }

    def _sending_from(
        self,
        device: str,
        function: Callable[..., Any],
        delta: write.Since,
        arguments: tuple[object, ...],
    ) -> Iterator[np.ndarray]:
        for name, shards in self._shards.items():
            for place, shard in enumerate(shards):
                if shard.device == device:
                    rows = ShardRows(
                        shard,
                        delta.which(name, place),
                        with_state=False,
                        function=function,
                        token=self.placement.token,
                    )
                    size = write.chunk_rows(shard.group)
                    yield from rows.send(size, *arguments, device, name)

    def ids(self) -> Iterator[tuple[layout.Group, np.ndarray]]:
        """Yields the ids that have a row, `[n]`, int64, shard by shard."""
        for shard in itertools.chain(*self._shards.values()):
            yield shard.group, shard.lock.run(shard.index.ids).numpy()

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
        self._history.begin(report.step or 0, keep_saved=keep_others)
        self._note_saved(report.step, chain.newest.manifest.get("id"))
        return report

    def touched(
        self, since_step: int, *, with_removals: bool = True
    ) -> Iterator[tuple[layout.Group, Chunk]]:
        """Yields rows inserted or updated since a step, in chunks, without state.

        Args:
          since_step: The first step. The store must track updates.
          with_removals: Whether removals since then must be known too.

        Raises:
          ValueError: If the changes since then are not known.
        """
        if with_removals:
            self._history.check(since_step)
        for shard in itertools.chain(*self._shards.values()):
            rows = ShardRows(shard, Which("step", since_step), with_state=False)
            for chunk in rows.chunks(write.chunk_rows(shard.group)):
                yield shard.group, chunk

    def removed(self, since: Mark | int) -> np.ndarray:
        """Returns ids that lost their row since then; some may have one again.

        Args:
          since: A mark, or the first step. The store must track updates.

        Raises:
          ValueError: If the changes since then are not known.
        """
        found = [ids for _, ids in self._removed(since)]
        return np.concatenate([np.zeros([0], np.int64), *found])

    def lost(self, since: Mark | int) -> Iterator[tuple[layout.Group, np.ndarray]]:
        """Yields ids that lost their row since then and have none now, by group.

        Args:
          since: A mark, or the first step. The store must track updates.

        Raises:
          ValueError: If the changes since then are not known.
        """
        for shard, ids in self._removed(since):
            numbers = shard.lock.run(lambda s, i: s.index.search(i), shard, ids)
            gone = ids[numbers.numpy() == 0]
            if len(gone):
                yield shard.group, gone

    def _removed(self, since: Mark | int) -> Iterator[tuple[Shard, np.ndarray]]:
        if isinstance(since, Mark):
            self._check_mark(since)
            delta = write.Since(0, periods=since.periods)
        else:
            self._history.check(since)
            delta = write.Since(since)
        for name, shards in self._shards.items():
            for place, shard in enumerate(shards):
                ids = delta.removed(name, place, shard)
                if len(ids):
                    yield shard, ids

    def forget_removed(self, before_step: int) -> None:
        """Frees the memory of ids that were removed before a step.

        Args:
          before_step: Changes since an earlier step are no longer known afterwards.
        """
        for shard in itertools.chain(*self._shards.values()):
            shard.lock.run(shard.removals.forget_steps, before_step)
        self._history.forget(before_step)

    def rows(self) -> Iterator[RowChunk]:
        """Yields ids and weights of all rows in use, in chunks."""
        for shard in itertools.chain(*self._shards.values()):
            rows = ShardRows(shard, with_state=False)
            for chunk in rows.chunks(write.chunk_rows(shard.group)):
                yield RowChunk.of_group(shard.group, chunk)

    def freeze(self) -> FrozenStore:
        """Returns a read-only copy in memory."""
        frozen = FrozenStore(self.tables, self.columns)
        frozen.fill(self.rows())
        return frozen
