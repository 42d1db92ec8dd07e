"""The partitioned embedding store."""

import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import tensorflow as tf

from monolith_tf.embedding import checkpoint
from monolith_tf.embedding import expansion
from monolith_tf.embedding import layout
from monolith_tf.embedding import maintenance
from monolith_tf.embedding import routing
from monolith_tf.embedding import sizing
from monolith_tf.embedding.frozen import FrozenStore
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.pulled import Pulled
from monolith_tf.embedding.pulled import PulledShard
from monolith_tf.embedding.restoring import Restoring
from monolith_tf.embedding.shard import Shard
from monolith_tf.embedding.shard_rows import COUNTERS
from monolith_tf.embedding.shard_rows import Clock
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor


class EmbeddingStore(tf.Module):
    """Embedding tables with one row per id and no collisions, spread over shards.

    A training step calls `lookup`, watches `Pulled.rows`, calls `combine`, and hands
    the gradients to `apply_gradients`, all in one `tf.function` if it likes. Between
    steps it calls `maintain`.

    Rows are not variables that `tf.train.Checkpoint` sees: `save` and `restore` write
    and read them by id.

    Attributes:
      tables: The tables, in the order of all counters.
      columns: The features that read them.
      placement: Number of shards and their devices.
      groups: The tables as they are merged physically.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
      seed: Of initial values.
      placement: Number of shards and their devices; one in this process by default.
      mode: "exact": updates of one shard wait for each other, so that no update of a
        row is lost. "hogwild": they do not, and when several workers update one row
        at the same moment some of those updates may be lost.
      capacity: Rows that each shard of a group of tables has room for at first.
        `maintain` makes more room before it is used up. By default as many as a 32nd
        of this machine's memory holds; memory is taken as rows are written.

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
        self.groups = layout.merge_tables(self.tables)
        self._seed = seed
        self._router = routing.Router(self.groups, self.columns)
        self._shards = {
            group.name: tuple(
                Shard(
                    group,
                    device=self.placement.device(number),
                    seed=seed,
                    is_exact=mode == "exact",
                    capacity=capacity
                    or sizing.capacity(group, self.groups, self.placement),
                )
                for number in range(self.placement.num_shards)
            )
            for group in self.groups
        }

    @tf.autograph.experimental.do_not_convert
    def lookup(
        self,
        ids: Mapping[str, Any],
        *,
        training: bool,
        step: Tensor | None = None,
        now_secs: Tensor | None = None,
    ) -> Pulled:
        """Finds the rows of a batch's ids.

        Args:
          ids: Feature -> ids, `[batch]` or ragged `[batch, None]`, int64, with one
            batch size; features of another batch size take a lookup of their own.
          training: Whether ids without a row are counted and given one. Otherwise
            nothing changes, and they read zeros.
          step: The global step; needed in training by tables that ask for it.
          now_secs: Seconds since 1970, for tables that expire by days; by default the
            clock of the machine that runs the step.

        Returns:
          The rows, with what `combine` and `apply_gradients` need.
        """
        distinct, splits = self._router.distinct(ids)
        secs: Any = ()
        if training and any(group.keeps_secs for group in self.groups):
            secs = tf.timestamp() if now_secs is None else now_secs
            secs = tf.cast(secs, tf.int64)
        rows, shards = {}, {}
        for name, batch in distinct.items():
            clock = None
            if training:
                clock = _clock(self._router.groups[name], step, secs)
            rows[name], shards[name] = self._pull(name, batch, clock)
        inverses = {name: batch.inverse for name, batch in distinct.items()}
        return Pulled(rows, inverses, splits, shards, secs)

    @tf.autograph.experimental.do_not_convert
    def combine(self, pulled: Pulled) -> dict[str, dict[str, Any]]:
        """Embeddings of every feature: feature -> slice name -> tensor.

        `[batch, dim]`; with "first_n" `[batch, max_length, dim]`, with "none" ragged.
        """
        return self._router.combine(pulled.rows, pulled.inverses, pulled.splits)

    @tf.autograph.experimental.do_not_convert
    def masks(self, pulled: Pulled) -> dict[str, Tensor]:
        """For each "first_n" feature `[batch, max_length]`, true where an id stands."""
        return self._router.masks(pulled.splits)

    @tf.autograph.experimental.do_not_convert
    def apply_gradients(
        self, pulled: Pulled, gradients: Mapping[str, Any], step: Tensor
    ) -> None:
        """Updates the rows that a training lookup found.

        Args:
          pulled: What that lookup returned.
          gradients: Group name -> gradient of `pulled.rows`; None or missing leaves
            the group's rows alone.
          step: The global step, 0 at the first update.
        """
        clock = Clock(tf.cast(step, tf.int64), pulled.secs)
        for name, parts in pulled.shards.items():
            gradient = gradients.get(name)
            if gradient is None:
                continue
            if isinstance(gradient, tf.IndexedSlices):
                num_rows = tf.shape(pulled.rows[name])[0]
                places = tf.cast(gradient.indices, tf.int32)
                gradient = expansion.sum_by_row(gradient.values, places, num_rows)
            for shard, part in zip(self._shards[name], parts, strict=True):
                of_shard = gradient
                if not isinstance(part.places, tuple):
                    of_shard = tf.gather(gradient, part.places)
                with tf.device(shard.device):
                    shard.apply_gradients(part, of_shard, clock)

    @tf.autograph.experimental.do_not_convert
    def counters(self) -> dict[str, Tensor]:
        """What happened so far: counter -> `[tables]`, int64, in the order of `tables`.

        `rows` in use; rows `inserted`; ids `refused` because they were not admitted
        yet, counted once a step; ids that found no room, `overflow`; row gradients
        `dropped` for want of a row; rows `expired` and `evicted`.
        """
        place = {table.name: i for i, table in enumerate(self.tables)}
        order, totals = [], []
        for group in self.groups:
            order += [place[table.name] for table in group.tables]
            of_shards = [s.counters.read_value() for s in self._shards[group.name]]
            totals.append(tf.add_n(of_shards))
        by_table = tf.gather(tf.concat(totals, axis=0), tf.argsort(order))
        return dict(zip(COUNTERS, tf.unstack(by_table, axis=1), strict=True))

    def maintain(
        self, step: int | None = None, now_secs: float | None = None
    ) -> maintenance.MaintenanceReport:
        """Drops rows that are too old or too many, and makes room for new ones.

        To be called between steps, and often enough that new ids do not use up a
        quarter of the room in between; ids that find no room read zeros until the next
        call. Limits hold from call to call, so a table may pass one in between.

        Args:
          step: The global step; needed by tables that expire by steps.
          now_secs: Seconds since 1970; now when not given.

        Raises:
          TableFullError: If a table is over a limit that it does not evict at, or
            memory is short.
        """
        now_secs = time.time() if now_secs is None else float(now_secs)
        return maintenance.maintain(
            self._shards, None if step is None else int(step), now_secs
        )

    def describe(self) -> list[sizing.TableInfo]:
        """Size and place of every table, in the order of `tables`."""
        rows = self.counters()["rows"].numpy().tolist()
        devices = tuple(map(self.placement.device, range(self.placement.num_shards)))
        group_of = {
            table.name: group for group in self.groups for table in group.tables
        }
        return [
            sizing.TableInfo(
                name=table.name,
                slot=table.slot or 0,
                dim=table.row_dim,
                rows=num_rows,
                bytes=num_rows * sizing.bytes_per_id(group_of[table.name]),
                devices=devices,
            )
            for table, num_rows in zip(self.tables, rows, strict=True)
        ]

    def save(
        self,
        directory: str,
        *,
        step: int | None = None,
        now_secs: float | None = None,
    ) -> dict[str, Any]:
        """Writes all rows in use, with optimizer state and bookkeeping.

        Memory is bounded by a chunk. The manifest is written last; a directory without
        it is not a checkpoint.

        Args:
          directory: A new or empty directory.
          step: The global step.
          now_secs: Seconds since 1970; now when not given.

        Returns:
          The manifest.
        """
        return checkpoint.save(directory, self._shards, step=step, now_secs=now_secs)

    def restore(
        self,
        directory: str,
        *,
        aliases: Mapping[str, str] | None = None,
        with_optimizer_state: bool = True,
    ) -> checkpoint.RestoreReport:
        """Replaces everything by what `save` wrote, whatever its number of shards.

        Tables and slices that the checkpoint lacks start anew; those that the store
        lacks are left out.

        Args:
          directory: Of the checkpoint.
          aliases: Saved table name -> table name; by default they are the same.
          with_optimizer_state: Whether optimizer state is read too.

        Raises:
          ValueError: If the checkpoint is damaged or does not fit the tables; nothing
            has changed then.
        """
        restoring = Restoring(
            directory,
            self.groups,
            seed=self._seed,
            aliases=aliases,
            with_optimizer_state=with_optimizer_state,
        )
        return checkpoint.restore(restoring, self._shards)

    def freeze(self) -> FrozenStore:
        """A read-only copy of exact size, for export."""
        rows = self.counters()["rows"].numpy()
        names = [table.name for table in self.tables]
        num_rows = dict(zip(names, rows, strict=True))
        frozen = FrozenStore(self.tables, self.columns, num_rows)
        for shards in self._shards.values():
            for shard in shards:
                size = checkpoint.chunk_rows(shard.group)
                chunks = shard.chunks(size, with_state=False)
                frozen.fill((chunk.ids, chunk.weights) for chunk in chunks)
        return frozen

    def _pull(
        self, name: str, batch: routing.Distinct, clock: Clock | None
    ) -> tuple[Tensor, tuple[PulledShard, ...]]:
        """Weights of a group's distinct ids, and what each of its shards found."""
        found, rows = [], []
        parts = routing.partition(batch, self.placement.num_shards)
        for shard, part in zip(self._shards[name], parts, strict=True):
            with tf.device(shard.device):
                part, weights = shard.lookup(part, clock)
            # Weights that need not travel back from another machine.
            is_kept = (
                clock is not None
                and self.placement.devices is None
                and shard.reuses_weights
            )
            found.append(part._replace(weights=weights) if is_kept else part)
            rows.append(weights)
        if len(rows) == 1:
            return rows[0], tuple(found)
        return tf.dynamic_stitch([part.places for part in found], rows), tuple(found)


def _clock(group: layout.Group, step: Tensor | None, secs: Any) -> Clock:
    if step is not None:
        return Clock(tf.cast(step, tf.int64), secs)
    if group.keeps_step:
        names = [table.name for table in group.tables]
        raise ValueError(
            "`step` must be given in training where a table expires by steps or evicts "
            f"its oldest rows. Received: step=None, tables={names}."
        )
    return Clock((), secs)
