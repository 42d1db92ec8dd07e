"""What a step asks of a store: rows of ids, and room for their gradients."""

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
    """The part of an `EmbeddingStore` that is used in steps; arguments as there."""

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
          ids: Feature -> ids, `[batch]` or ragged `[batch, None]`, int64, with one
            batch size; features of another batch size take a lookup of their own. An
            id has the slot of its table in its upper 16 bits, as `ids.with_slot` puts
            it there; only a table of exact integers takes any int64 as it is. Which row
            an id has is said by its slot, not by its feature: an id with the slot of
            another table of the same group reads and trains that table's row, and is
            counted there. With the slot of a table of another group it has no row.
          training: Whether ids without a row are counted and given one. Otherwise
            nothing changes, and they read zeros.
          step: The global step; needed in training by tables that ask for it.
          now_secs: Seconds since 1970, for tables that expire by days; by default the
            clock of the machine that runs the step.

        Returns:
          The rows, with what `combine` and `apply_gradients` need.

        Raises:
          tf.errors.InvalidArgumentError: If an id that is to be given a row has the
            slot of no table in the group of its feature's table.
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
        self,
        pulled: Pulled,
        gradients: Mapping[str, Any],
        step: Tensor,
        rate_scale: Tensor | None = None,
    ) -> None:
        """Updates the rows that a training lookup found.

        Args:
          pulled: What that lookup returned.
          gradients: Group name -> gradient of `pulled.rows`; None or missing leaves
            the group's rows alone. A row whose gradient is not finite stays as it is,
            and is counted as `dropped`.
          step: The global step, 0 at the first update.
          rate_scale: Factor of all learning rates; None is 1.
        """
        clock = Clock(tf.cast(tf.convert_to_tensor(step), tf.int64), pulled.secs)
        # Read once, and here: two locks must not hold one variable.
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
                of_shard = gradient
                if not isinstance(part.places, tuple):
                    of_shard = tf.gather(gradient, part.places)
                part = part._replace(places=())
                with tf.device(shard.device):
                    shard.packed.call("push", part, of_shard, clock, scale)

    @tf.autograph.experimental.do_not_convert
    def counters(self) -> dict[str, Tensor]:
        """What happened so far: counter -> `[tables]`, int64, in the order of `tables`.

        `rows` in use; rows `inserted`; ids `refused` because they were not admitted
        yet, counted once a step; ids that found no room, `overflow`; row gradients
        `dropped` for want of a row, or because they were not finite; rows `expired` and
        `evicted`.
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
        """What happened to each table so far, as plain numbers.

        Reads one small variable per shard, and may be asked while steps are under way.

        Returns:
          Table name -> counter -> number: those of `counters`, and `bytes`, about what
          the table's rows take in memory with optimizer state, bookkeeping and index.
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
        """Weights of a group's distinct ids, and what each of its shards found.

        One call for each shard, where it lives: as a part of the graph here, each of
        its branches would send messages to and fro.
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
            # One trace for all groups does not know how wide a row is.
            weights = tf.ensure_shape(weights, [None, shard.group.dim])
            # Weights that need not travel back from another machine are kept.
            is_kept = self.placement.devices is None and shard.reuses_weights
            found.append(part._replace(weights=weights if is_kept else ()))
            rows.append(weights)
        if len(rows) == 1:
            return rows[0], tuple(found)
        return tf.dynamic_stitch([part.places for part in found], rows), tuple(found)


def _checked(name: str, gradient: Any, rows: Tensor) -> Tensor:
    """The gradient of a group's rows, if it has their shape."""
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
    """The gradient of a group, if it has a shape, of which `static` is known."""
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
