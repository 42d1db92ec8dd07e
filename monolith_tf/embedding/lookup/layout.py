"""Merging logical tables into physical groups.

Tables whose rows have the same slices, trained by the same update rules, live in one
group: one index and one row variable per shard. A step then takes a fixed number of
operations per group, for any number of features and tables. Values that differ between
tables, such as a learning rate, are looked up by the id's slot.

A group's row has weights, slice after slice, and optimizer state, in the same order.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import row_size
from monolith_tf.embedding.optimizers import row_state
from monolith_tf.embedding.optimizers import rules as optimizers
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.ids import HASH_BITS
from monolith_tf.ids import NUM_SLOTS
from monolith_tf.types import Tensor


@dataclasses.dataclass(frozen=True)
class Part:
    """A slice's place in a group's rows.

    Attributes:
      name: The slice's name.
      dim: Its width.
      kind: Its update rule, as `optimizers.kind` names it.
      start: Its first column among a row's weights.
      state_start: First column of its optimizer state in a row's state.
      state_dims: Widths of the parts of that state.
    """

    name: str
    dim: int
    kind: str
    start: int
    state_start: int
    state_dims: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Tables that share an index and a row variable.

    Attributes:
      name: Unique among a store's groups.
      tables: The tables in it, in the store's order.
      parts: The slices of a row.
      tracks_updates: Whether the step of every row's last update is kept.
    """

    name: str
    tables: tuple[TableSpec, ...]
    parts: tuple[Part, ...]
    tracks_updates: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether ids are plain integers of one table, without slot bits."""
        return self.tables[0].large_integers == "exact"

    def slots_of(self, ids: np.ndarray) -> np.ndarray:
        """Returns the slot of each id's table."""
        if self.is_exact:
            return np.full(len(ids), self.tables[0].slot or 0)
        return ids >> HASH_BITS

    @property
    def dim(self) -> int:
        """Weights per row."""
        return sum(part.dim for part in self.parts)

    @property
    def state_dim(self) -> int:
        """Floats of optimizer state per row."""
        return sum(sum(part.state_dims) for part in self.parts)

    @property
    def has_state(self) -> bool:
        """Whether rows have optimizer state."""
        return any(part.state_dims for part in self.parts)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's weights and optimizer state."""
        return 4 * (self.dim + self.state_dim)

    @property
    def bytes_per_id(self) -> int:
        """Bytes that one more id takes, its index entry included."""
        return row_size.bytes_per_id(self.tables, self.tracks_updates)

    @property
    def updates_all_rows(self) -> bool:
        """Whether a step updates all rows, not only those of the batch."""
        return self.tables[0].update_rows == "all"

    @property
    def inserts_at_push(self) -> bool:
        """Whether any table gives an id its row at the first gradient."""
        return any(table.unknown == "zeros" for table in self.tables)

    @property
    def counts_occurrences(self) -> bool:
        """Whether any table admits an id only after some occurrences."""
        return any(table.admit_after > 1 for table in self.tables)

    @property
    def needs_step(self) -> bool:
        """Whether a training lookup needs the step."""
        return self.keeps_step or any(
            table.admit_after > 1 and table.admission == "probabilistic"
            for table in self.tables
        )

    @property
    def keeps_step(self) -> bool:
        """Whether the step of a row's last update is kept."""
        return row_size.keeps_step(self.tables, self.tracks_updates)

    @property
    def keeps_secs(self) -> bool:
        """Whether the time of a row's last update is kept."""
        return row_size.keeps_secs(self.tables)

    @property
    def stamps(self) -> tuple[str, ...]:
        """What is kept of a row's last update: "step", "secs"."""
        kept = {"step": self.keeps_step, "secs": self.keeps_secs}
        return tuple(name for name, is_kept in kept.items() if is_kept)

    def table_of(self, ids: Tensor) -> Tensor:
        """Returns the index in `tables` of each id's table, `[n]`, int32."""
        if len(self.tables) == 1:
            return tf.zeros_like(ids, tf.int32)
        places = tf.convert_to_tensor(self.places(), tf.int32)
        # An id of a foreign slot counts as some table's, so that reads stay in bounds.
        highest = tf.size(places, tf.int64) - 1
        return tf.gather(places, tf.minimum(slot_of(ids), highest))

    def slots(self) -> Any:
        """Returns the slots of the tables, `[tables]`, int64."""
        return np.array([table.slot or 0 for table in self.tables], np.int64)

    def places(self) -> Any:
        """Returns the table's index for each slot up to the highest, int32; else 0."""
        slots = self.slots()
        places = np.zeros([slots.max() + 1], np.int32)
        places[slots] = np.arange(len(slots))
        return places

    def per_row(self, values: Sequence[Any], ids: Tensor, dtype: tf.DType) -> Any:
        """Expands one value per table to one per id, `[n, 1]`; keeps a common value."""
        if all(value is values[0] or value == values[0] for value in values):
            return values[0]
        return tf.gather(tf.constant(values, dtype), self.table_of(ids))[:, tf.newaxis]


def slot_of(ids: Tensor) -> Tensor:
    """Returns the slot in the high bits of each id, as int64."""
    shifted = tf.bitwise.right_shift(ids, tf.constant(HASH_BITS, tf.int64))
    return tf.bitwise.bitwise_and(shifted, tf.constant(NUM_SLOTS - 1, tf.int64))


def shard_of(ids: Tensor, num_shards: int) -> Tensor:
    """Returns the shard of each id, int32; similar ids spread over the shards."""
    odd = tf.constant(0x9E37_79B9_7F4A_7C15, tf.uint64)
    mixed = tf.bitcast(ids, tf.uint64) * odd
    high = tf.bitwise.right_shift(mixed, tf.constant(33, tf.uint64))
    return tf.cast(tf.cast(high, tf.int64) % num_shards, tf.int32)


def merge_tables(
    tables: Sequence[TableSpec],
    key: Callable[[SliceSpec], tuple] | None = None,
    *,
    tracks_updates: bool = False,
) -> tuple[Group, ...]:
    """Groups tables by the layout of their rows; each exact table is its own group.

    Args:
      tables: All of a store's tables, each with a slot.
      key: Returns what slices must share to be in one group, besides name and width.
        By default that is the update rule, and also which rows a step updates.
      tracks_updates: Whether the step of every row's last update is kept.

    Raises:
      ValueError: If two tables share a name or a slot, or one has no slot.
    """
    _check_distinct(tables)
    merged: dict[tuple, list[TableSpec]] = {}
    for table in tables:
        alone, rows, layout = row_size.layout_key(table)
        if key is not None:
            rows = None
            layout = tuple(
                (part.name, part.dim, *key(part)) for part in table.row_slices()
            )
        merged.setdefault((alone, rows, layout), []).append(table)
    names: set[str] = set()
    groups = []
    for (alone, _, layout), members in merged.items():
        name = "-".join(".".join(map(str, part)) for part in layout)
        name += f"-exact.{alone}" if alone else ""
        while name in names:
            name += "_"
        names.add(name)
        parts = _place(members[0].row_slices(), with_state=key is None)
        groups.append(Group(name, tuple(members), parts, tracks_updates))
    return tuple(groups)


def _place(slices: Sequence[SliceSpec], with_state: bool) -> tuple[Part, ...]:
    parts = []
    start = 0
    state_start = 0
    for part in slices:
        kind = optimizers.kind(part.optimizer)
        state = row_state.part_dims(kind, part.dim)[1:] if with_state else []
        parts.append(Part(part.name, part.dim, kind, start, state_start, tuple(state)))
        start += part.dim
        state_start += sum(state)
    return tuple(parts)


def _check_distinct(tables: Sequence[TableSpec]) -> None:
    by_name: dict[str, TableSpec] = {}
    by_slot: dict[int, TableSpec] = {}
    for table in tables:
        if table.slot is None:
            raise ValueError(
                "Every table must have a `slot`. Received: "
                f"name={table.name!r}, slot=None. Give it one of its own in the spec."
            )
        if table.name in by_name:
            raise ValueError(
                f"`tables` must differ in name. Received: name={table.name!r} twice."
            )
        if table.slot in by_slot:
            raise ValueError(
                f"`tables` must differ in slot. Received: slot={table.slot} for "
                f"{by_slot[table.slot].name!r} and {table.name!r}."
            )
        by_name[table.name] = table
        by_slot[table.slot] = table
