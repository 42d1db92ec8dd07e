"""The operations of a store that run in a step: lookups and gradient updates."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import tensorflow as tf

from monolith_tf.embedding.lookup import expansion
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.lookup import routing
from monolith_tf.embedding.lookup.distinct import Distinct
from monolith_tf.embedding.lookup.pulled import Pulled
from monolith_tf.embedding.lookup.pulled import PulledShard
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import sizing
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.shard.shard_rows import COUNTERS
from monolith_tf.embedding.shard.shard_rows import Clock
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor


class StepStore(tf.Module):
    """The part of `EmbeddingStore` that steps use; it takes the same arguments."""

    def __init__(
        self,
        tables: Sequence[TableSpec],
        columns: Sequence[ColumnSpec],
        *,
        seed: int,
        placement: Placement | None,
        mode: Literal["exact", "hogwild"],
        capacity: int | None,
        track_updates: bool,
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
                    is_exact=mode == "exact",
                    is_raw=group.is_exact,
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
        for name, batch in distinct.items():
            clock = None
            if training:
                clock = _clock(self._router.groups[name], step, secs)
            rows[name], found = self._pull(name, batch, clock)
            if training:
                shards[name] = found
        inverses = {name: batch.inverse for name, batch in distinct.items()}
        return Pulled(rows, inverses, splits, shards, secs)

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
        clock = Clock(tf.cast(tf.convert_to_tensor(step), tf.int64), pulled.secs)
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
            gradient = _checked(name, gradient, pulled.rows[name])
            parts = zip(self._shards[name], pulled.shards[name], strict=True)
            for shard, part in parts:
                # A shard takes only the gradients of its own ids. Gathering them here
                # sends no other shard's gradients to its machine.
                of_shard = gradient
                if not isinstance(part.places, tuple):
                    of_shard = tf.gather(gradient, part.places)
                part = part._replace(places=())
                with tf.device(shard.device):
                    shard.packed.call("push", part, of_shard, clock, scale)

    @tf.autograph.experimental.do_not_convert
    def counters(self) -> dict[str, Tensor]:
        """Returns counter -> `[tables]`, int64, in the order of `tables`.

        The counters are `rows` in use; rows `inserted`; ids `refused` because they are
        not admitted yet, once per step; ids without room, `overflow`; row gradients
        `dropped` because the id has no row or the gradient is not finite; rows
        `expired` and `evicted`.
        """
        if not self.tables:
            return dict.fromkeys(COUNTERS, tf.zeros([0], tf.int64))
        place = {table.name: i for i, table in enumerate(self.tables)}
        order, totals = [], []
        for group in self.groups:
            order += [place[table.name] for table in group.tables]
            of_shards = [s.counters.read_value() for s in self._shards[group.name]]
            totals.append(tf.add_n(of_shards))
        by_table = tf.gather(tf.concat(totals, axis=0), tf.argsort(order))
        return dict(zip(COUNTERS, tf.unstack(by_table, axis=1), strict=True))

    def table_counters(self) -> dict[str, dict[str, int]]:
        """Returns each table's counters as Python numbers.

        Reads one small variable per shard, also while steps are running.

        Returns:
          Table name -> counter -> number: those of `counters`, and `bytes`, an estimate
          of the memory of the rows with optimizer state, bookkeeping and index.
        """
        counters = {name: value.numpy() for name, value in self.counters().items()}
        bytes_per_id = {
            table.name: group.bytes_per_id
            for group in self.groups
            for table in group.tables
        }
        by_table = {}
        for place, table in enumerate(self.tables):
            found = {name: int(values[place]) for name, values in counters.items()}
            found["bytes"] = found["rows"] * bytes_per_id[table.name]
            by_table[table.name] = found
        return by_table

    def _pull(
        self, name: str, batch: Distinct, clock: Clock | None
    ) -> tuple[Tensor, tuple[PulledShard, ...]]:
        """Returns weights of a group's distinct ids, and the result of each shard.

        Calls one function per shard, on the shard's device: inlined in this graph, each
        of its branches would send messages between the machines.
        """
        found, rows = [], []
        parts = routing.partition(batch, self.placement.num_shards)
        for shard, part in zip(self._shards[name], parts, strict=True):
            if clock is None:
                with tf.device(shard.device):
                    weights = shard.packed.call("read", part.ids, writes=False)
            else:
                with tf.device(shard.device):
                    asked = part._replace(places=())
                    result = shard.packed.call("lookup", asked, clock)
                weights = result.weights
                part = part._replace(**result._asdict())
            # All groups share one trace, so its output has no static width.
            weights = tf.ensure_shape(weights, [None, shard.group.dim])
            # Keep the weights for the update only if they stay on this machine.
            is_kept = self.placement.devices is None and shard.reuses_weights
            found.append(part._replace(weights=weights if is_kept else ()))
            rows.append(weights)
        if len(rows) == 1:
            return rows[0], tuple(found)
        # Each shard answered for its part of the distinct ids. `places` are their
        # positions in the batch; stitching by them restores the batch's order, so that
        # inverses and gradients use the same positions for any number of shards.
        return tf.dynamic_stitch([part.places for part in found], rows), tuple(found)


def _checked(name: str, gradient: Any, rows: Tensor) -> Tensor:
    """Returns the gradient as a dense tensor; fails unless it has the rows' shape."""
    if not isinstance(gradient, tf.IndexedSlices):
        return _of_shape(name, gradient, rows.shape, tf.shape(rows))
    places, num_rows = gradient.indices, tf.shape(rows)[0]
    shape = tf.stack([tf.size(places), rows.shape[1]])
    values = _of_shape(name, gradient.values, [None, rows.shape[1]], shape)
    message = f"The gradient of {name!r} must have indices of rows pulled, which are"
    first, last = tf.reduce_min(places), tf.reduce_max(places)
    check = tf.raw_ops.Assert(
        condition=(first >= 0) & (last < tf.cast(num_rows, places.dtype)),
        data=[
            message,
            num_rows,
            "in number. Received: indices from",
            first,
            "to",
            last,
        ],
    )
    with tf.control_dependencies([] if check is None else [check]):
        places = tf.cast(places, tf.int32)
    return expansion.sum_by_row(values, places, num_rows)


def _of_shape(name: str, gradient: Any, static: Any, shape: Tensor) -> Tensor:
    """Returns the gradient; fails unless it has a shape, partly known as `static`."""
    gradient = tf.convert_to_tensor(gradient)
    if not gradient.shape.is_compatible_with(static):
        raise ValueError(
            f"The gradient of {name!r} must have the shape of its rows, "
            f"{tf.TensorShape(static)}. Received: shape={gradient.shape}."
        )
    given = tf.shape(gradient)
    is_equal = tf.reduce_all(tf.equal(given[:2], shape)) & tf.equal(tf.size(given), 2)
    message = f"The gradient of {name!r} must have a row for each row pulled. Received:"
    check = tf.raw_ops.Assert(condition=is_equal, data=[message, given, shape])
    with tf.control_dependencies([] if check is None else [check]):
        gradient = tf.identity(gradient)
    gradient.set_shape(static)
    return gradient


def _clock(group: layout.Group, step: Tensor | None, secs: Any) -> Clock:
    if step is not None:
        return Clock(tf.cast(tf.convert_to_tensor(step), tf.int64), secs)
    if group.needs_step:
        names = [table.name for table in group.tables]
        raise ValueError(
            "`step` must be given in training where a table expires by steps, evicts "
            "its oldest rows or admits by chance, or updates are tracked. "
            f"Received: step=None, tables={names}."
        )
    return Clock((), secs)
