"""Read-only tables, for export."""

import itertools
import types
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf.embedding.frozen import lists as frozen_lists
from monolith_tf.embedding.frozen import pieces as frozen_pieces
from monolith_tf.embedding.frozen.group import FrozenGroup
from monolith_tf.embedding.frozen.group import frozen_groups
from monolith_tf.embedding.frozen.pieces import Found
from monolith_tf.embedding.frozen.pieces import Piece
from monolith_tf.embedding.lookup import routing
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.saved.chain import Chain
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.ids import HASH_BITS
from monolith_tf.ids import NUM_SLOTS
from monolith_tf.types import Tensor


class RowChunk(NamedTuple):
    """Rows of tables whose slices are equal.

    Attributes:
      ids: Feature ids, `[n]`, int64; the integers themselves in an exact table.
      weights: `[n, dim]`.
      table: The table's name if it is exact; otherwise None.
    """

    ids: np.ndarray
    weights: np.ndarray
    table: str | None = None

    @classmethod
    def of_group(cls, group: Group, chunk: Chunk) -> "RowChunk":
        """Returns the weights of a group's chunk."""
        table = group.tables[0].name if group.is_exact else None
        return cls(chunk.ids, chunk.weights, table)


Rows: TypeAlias = Iterable[RowChunk]
"""Rows in chunks."""

_NO_VALUE = -1  # Has no row, or one of zeros.
_NO_RANGES: Mapping[str, int] = types.MappingProxyType({})


class FrozenStore(tf.Module):
    """Read-only tables without optimizer state, stored with each slice's compressor.

    `lookup`, `combine` and `masks` return the same as in an `EmbeddingStore` outside of
    training. The shapes of its variables leave the number of rows open, so a graph that
    is saved with an empty store also works with the rows that `files.write` later puts
    into its files.

    Hashing takes longer than finding rows. Tables of integers can avoid it: they are
    indexed by the integers themselves, which `find_values` takes. If all integers with
    a row are small, an array replaces the hash index.

    Attributes:
      groups: The tables in their stored form.
      integers: Names of the tables that are indexed by integers.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
      exact: Whether to store all slices as fp32, ignoring their compressors.
      integers: Tables whose ids were made from integers only; none by default.
      ranges: Table of integers -> n, to find its rows in an array with a place for each
        integer in [0, n); other integers have no row. The rows of all other tables are
        found in a hash index.

    Raises:
      ValueError: If a table in `ranges` is not in `integers`.
    """

    def __init__(
        self,
        tables: Sequence[TableSpec],
        columns: Sequence[ColumnSpec],
        *,
        exact: bool = False,
        integers: Collection[str] = (),
        ranges: Mapping[str, int] = _NO_RANGES,
    ) -> None:
        super().__init__(name="frozen_store")
        if not set(ranges) <= set(integers):
            raise ValueError(
                "`ranges` must be of tables in `integers`. Received: "
                f"ranges={dict(ranges)}, integers={sorted(integers)}."
            )
        self._columns = tuple(columns)
        self.groups = [
            FrozenGroup(group, exact, ranges) for group in frozen_groups(tables, ranges)
        ]
        self._router = routing.Router([g.group for g in self.groups], columns)
        wide = {t.name for t in tables if t.large_integers == "exact"}
        self.integers = frozenset(integers) | wide
        self._slots = {table.name: table.slot or 0 for table in tables}
        self._group_of_slot = np.full(NUM_SLOTS, -1)
        self._group_of_table: dict[str, int] = {}
        self._hashing = {t.name for t in tables if t.large_integers == "hash"}
        for number, frozen in enumerate(self.groups):
            for table in frozen.group.tables:
                self._group_of_slot[table.slot or 0] = number
                self._group_of_table[table.name] = number

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        """The tables, group by group."""
        return tuple(table for frozen in self.groups for table in frozen.group.tables)

    @property
    def features(self) -> tuple[str, ...]:
        """All features, in the order of `combine`."""
        return tuple(column.feature for column in self._columns)

    def emptied(
        self, *, exact: bool, ranges: Mapping[str, int] = _NO_RANGES
    ) -> "FrozenStore":
        """Returns a store of the same tables, without rows, with these arguments."""
        return FrozenStore(
            self.tables,
            self._columns,
            exact=exact,
            integers=self.integers,
            ranges=ranges,
        )

    def fill(self, rows: Rows) -> None:
        """Adds rows in memory, of ids that have none yet."""
        chunks = list(self.by_group(rows))
        for number, frozen in enumerate(self.groups):
            mine = [(ids, weights) for place, ids, weights in chunks if place == number]
            if mine:
                ids, weights = map(np.concatenate, zip(*mine, strict=True))
                frozen.add(self.keys(frozen, ids).numpy(), weights)

    def keys(self, frozen: FrozenGroup, ids: Tensor) -> Tensor:
        """Returns the keys of feature ids in the index of their group."""
        return frozen.index.keys(*self.split(frozen, ids))

    def split(self, frozen: FrozenGroup, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the slots of feature ids, and their values: integers or hashes."""
        ids = tf.convert_to_tensor(ids, tf.int64)
        if frozen.group.is_exact:
            return tf.fill(tf.shape(ids), tf.constant(frozen.slot, tf.int64)), ids
        slots, hashes = ids_lib.slot_of(ids), ids_lib.hash_of(ids)
        if not self.integers:
            return slots, hashes
        of_integers = [self._slots[name] for name in self.integers]
        is_integer = tf.reduce_any(slots[..., tf.newaxis] == of_integers, axis=-1)
        return slots, tf.where(is_integer, ids_lib.to_integers(hashes), hashes)

    def ids(self, frozen: FrozenGroup, keys: Tensor) -> Tensor:
        """Returns the feature ids of keys in a hash index: the inverse of `keys`."""
        if frozen.group.is_exact or not self.integers:
            return keys
        slots, values = ids_lib.slot_of(keys), ids_lib.hash_of(keys)
        of_integers = [self._slots[name] for name in self.integers]
        is_integer = tf.reduce_any(slots[..., tf.newaxis] == of_integers, axis=-1)
        hashed = ids_lib.from_small_integers(values)
        return tf.where(is_integer, keys - values + hashed, keys)

    def by_group(self, rows: Rows) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Splits chunks of rows by group; yields (index in `groups`, ids, weights)."""
        for ids, weights, table in itertools.starmap(RowChunk, rows):
            if table is not None:
                yield self._group_of_table[table], ids, weights
                continue
            places = self._group_of_slot[ids >> HASH_BITS]
            for place in np.unique(places).tolist():
                mine = places == place
                whole = mine.all()
                yield (
                    place,
                    ids if whole else ids[mine],
                    weights if whole else weights[mine],
                )

    @tf.autograph.experimental.do_not_convert
    def lookup(
        self,
        ids: Mapping[str, Tensor],
        *,
        training: bool = False,
        step: Tensor | None = None,
        now_secs: Tensor | None = None,
    ) -> Found:
        """Finds the rows of a batch's ids; see `EmbeddingStore.lookup`.

        Raises:
          ValueError: If `training`.
        """
        del step, now_secs
        if training:
            raise ValueError(
                "`training` must be False: a frozen store does not learn. "
                "Received: training=True."
            )
        found = []
        for piece in self._pieces(ids):
            slots, values = self.split(piece.frozen, piece.asked)
            if not piece.frozen.group.is_exact:
                values = tf.where(slots == piece.slots, values, _NO_VALUE)
            found.append(piece._replace(asked=values))
        return frozen_pieces.read(found)

    @tf.autograph.experimental.do_not_convert
    def find_values(self, values: Mapping[str, Tensor]) -> Found:
        """Finds the rows of a batch by the values that its ids are made from.

        Args:
          values: Feature -> int64, shaped as the ids of `lookup`: integers for features
            of the tables in `integers`, 48-bit hashes for others. An integer outside of
            [0, 2^48) has no row, except in tables that are exact or hash it.
        """
        wide: list[Piece] = []
        pieces: list[Piece] = []
        for piece in self._pieces(values):
            (wide if self._must_fold(piece) else pieces).append(piece)
        folded = ids_lib.folded(
            [piece.asked for piece in wide],
            [self._hashes(piece) for piece in wide],
        )
        for piece, asked in zip(wide, folded, strict=True):
            pieces.append(piece._replace(asked=asked))
        return frozen_pieces.read(pieces)

    @tf.autograph.experimental.do_not_convert
    def combine(self, found: Found) -> dict[str, dict[str, Tensor]]:
        """Returns the embeddings: feature -> slice name -> tensor."""
        embeddings = {}
        for column in self._columns:
            if column.feature in found.rows:
                lists = found.lists[column.feature]
                embeddings[column.feature] = {
                    name: frozen_lists.combined(rows, lists, column)
                    for name, rows in found.rows[column.feature].items()
                }
        return embeddings

    @tf.autograph.experimental.do_not_convert
    def masks(self, found: Found) -> dict[str, Tensor]:
        """Returns a mask `[batch, max_length]` of each "first_n" feature's ids."""
        masks = {}
        for column in self._columns:
            if column.combiner == "first_n" and column.feature in found.lists:
                lists = found.lists[column.feature]
                masks[column.feature] = frozen_lists.mask(lists, column)
        return masks

    def _hashes(self, piece: Piece) -> np.ndarray:
        """Whether the table of each column hashes large integers; shaped as `slots`."""
        hashes = [column.table in self._hashing for column in piece.columns]
        return np.reshape(hashes, piece.slots.shape)

    def _must_fold(self, piece: Piece) -> bool:
        """Whether a piece may look up integers that its index does not take."""
        return piece.frozen.index.folds and any(
            column.table in self.integers for column in piece.columns
        )

    def _pieces(self, given: Mapping[str, Tensor]) -> list[Piece]:
        """Returns the lookups; one per group for all features of one id per example."""
        self._router.check_features(given)
        pieces = []
        for frozen in self.groups:
            singles, tensors = [], []
            for column in self._router.columns[frozen.group.name]:
                if column.feature not in given:
                    continue
                asked, lists = frozen_lists.asked(given[column.feature], column)
                if lists is None:
                    singles.append(column)
                    tensors.append(asked)
                else:
                    slot = np.array(self._slots[column.table])
                    pieces.append(Piece(frozen, [column], slot, asked, lists))
            if singles:
                slots = np.array([[self._slots[column.table]] for column in singles])
                pieces.append(Piece(frozen, singles, slots, tf.stack(tensors), None))
        return pieces


def saved_rows(
    tables: Sequence[TableSpec],
    directory: str,
    *,
    deltas: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Callable[[], Rows]:
    """Returns a function that reads the rows of an `EmbeddingStore.save` checkpoint.

    Args:
      tables: The tables, each with a slot.
      directory: Directory of the checkpoint.
      deltas: Directories of later deltas, oldest first.
      aliases: Saved table name -> table name.
      seed: Seed of initial values, for slices that the checkpoint lacks.

    Raises:
      ValueError: If the checkpoint is damaged or does not fit the tables.
    """
    chain = Chain(
        directory,
        frozen_groups(tables),
        seed=seed,
        deltas=deltas,
        aliases=aliases,
        with_optimizer_state=False,
    )
    return lambda: itertools.starmap(RowChunk.of_group, chain.rows())


def frozen_store(
    tables: Sequence[TableSpec],
    columns: Sequence[ColumnSpec],
    directory: str,
    **kwargs: Any,
) -> FrozenStore:
    """Builds a read-only store directly from an `EmbeddingStore.save` checkpoint.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
      directory: Directory of the checkpoint.
      **kwargs: Further arguments of `saved_rows`.

    Raises:
      ValueError: If the checkpoint is damaged or does not fit the tables.
    """
    store = FrozenStore(tables, columns)
    store.fill(saved_rows(tables, directory, **kwargs)())
    return store
