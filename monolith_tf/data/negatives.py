"""Rows with items drawn at random, added to the rows of the files."""

import functools
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.data import file_marks
from monolith_tf.data import formats
from monolith_tf.data import order
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.rows import Filled
from monolith_tf.data.rows import SplitRows
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import NegativesSpec
from monolith_tf.data.spec import Split
from monolith_tf.features.columns import ColumnType

_NUMBERS = {"int64": pa.int64(), "float32": pa.float32()}


def split_rows(
    spec: DataSpec,
    reader: Reader,
    split: Split,
    columns: Mapping[str, ColumnType],
    seed: int,
) -> "SplitRows | SampledRows":
    """Returns the rows of a split, with drawn rows if the config says so.

    Raises:
      ValueError: If `columns` lacks a column of `data.negatives`.
    """
    rows = SplitRows(spec, reader, split, spec.in_files(split, columns), seed)
    count = spec.num_negatives(split)
    if spec.negatives is None or not count:
        return rows
    missing = [name for name in spec.pair_columns() if name not in columns]
    if missing:
        raise ValueError(
            "`columns` must include those of `data.negatives`. Received: "
            f"{', '.join(columns)}, without `{missing[0]}`."
        )
    known = [
        SplitRows(
            spec,
            formats.make_reader(spec, name),
            name,
            {column: columns[column] for column in spec.pair_columns()},
            seed,
        )
        for name in dict.fromkeys(("train", split))
    ]
    return SampledRows(rows, known, spec.negatives, count, columns, seed)


class SampledRows:
    """The rows of a split, each followed by the rows drawn for it; see `SplitRows`.

    Attributes:
      files: The files of the split, in order.
      pieces: The pieces of all files, each with the place of its file in `files`.
      columns: The columns that are read, and the label column that is made.
    """

    def __init__(
        self,
        rows: SplitRows,
        known: Sequence[SplitRows],
        spec: NegativesSpec,
        count: int,
        columns: Mapping[str, ColumnType],
        seed: int,
    ) -> None:
        """Makes the rows.

        Args:
          rows: The rows to draw for.
          known: Users and items of splits whose pairs are never drawn; items are drawn
            from the first of these.
          spec: Which columns to use.
          count: Rows drawn for each row.
          columns: The columns to return.
          seed: Seed of the draws.
        """
        self.columns = dict(columns)
        self.files = rows.files
        self.pieces: list[tuple[int, Piece]] = rows.pieces
        self._rows = rows
        self._pairs = tuple(known)
        self._spec = spec
        self._count = count
        self._seed = seed

    @property
    def num_bad_rows(self) -> int:
        """See `SplitRows.num_bad_rows`."""
        return self._rows.num_bad_rows

    @property
    def filled(self) -> Filled:
        """See `SplitRows.filled`; only for the files' rows."""
        return self._rows.filled

    @property
    def marks(self) -> file_marks.Marks:
        """See `SplitRows.marks`."""
        return self._rows.marks

    def counts(self) -> dict[str, int]:
        """See `SplitRows.counts`; only for the files' rows."""
        return self._rows.counts()

    def count(self, index: int) -> int:
        """See `SplitRows.count`."""
        return self._rows.count(index) * (1 + self._count)

    def known_count(self, index: int) -> int | None:
        """See `SplitRows.known_count`."""
        known = self._rows.known_count(index)
        return None if known is None else known * (1 + self._count)

    def read(self, index: int, epoch: int = 0) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yields rows and the rows drawn for them, which have the same numbers.

        Args:
          index: Which piece.
          epoch: The epoch, which decides the draws.

        Raises:
          ValueError: At a bad row, or if a user has interacted with every item.
        """
        number, _ = self.pieces[index]
        for table, rows in self._rows.read(index):
            key = (self._seed, order.NEGATIVES, epoch, number)
            items = self._known.draw(table[self._spec.user], rows, self._count, key)
            drawn = table.take(np.repeat(np.arange(len(rows)), self._count))
            for name in self._spec.item:
                place = drawn.schema.get_field_index(name)
                drawn = drawn.set_column(
                    place, name, self._known.items[name].take(items)
                )
            yield self._joined(table, drawn), np.repeat(rows, 1 + self._count)

    def _joined(self, table: pa.Table, drawn: pa.Table) -> pa.Table:
        """Puts the drawn rows after each row, and adds the labels."""
        num_rows, count = len(table), self._count
        both = pa.concat_tables([table, drawn]).unify_dictionaries().combine_chunks()
        given = np.arange(num_rows)[:, np.newaxis]  # [rows, 1]
        added = num_rows + np.arange(num_rows * count).reshape(num_rows, count)
        both = both.take(np.concatenate([given, added], axis=1).ravel())
        if self._spec.label not in self.columns:
            return both
        labels = np.tile(np.arange(1 + count) == 0, num_rows).astype(np.int64)
        type_ = _NUMBERS[self.columns[self._spec.label].dtype]
        both = both.append_column(self._spec.label, pa.array(labels).cast(type_))
        return both.select(list(self.columns))

    @functools.cached_property
    def _known(self) -> "_Known":
        return _Known([_table(rows) for rows in self._pairs], self._spec)


def _table(split: SplitRows) -> pa.Table:
    """Returns all rows of a split, each column in one chunk."""
    tables = [
        table for piece in range(len(split.pieces)) for table, _ in split.read(piece)
    ]
    if not tables:
        raise ValueError("`data.negatives`: the train split has no rows to draw from.")
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


class _Known:
    """All items, and which user has interacted with which.

    Attributes:
      items: The items, each with its other columns.
    """

    def __init__(self, tables: Sequence[pa.Table], spec: NegativesSpec) -> None:
        item, train = spec.item[0], tables[0]
        items = _plain(train[item])
        self._items = pc.unique(items)
        first = np.unique(_codes(items, self._items), return_index=True)[1]
        self.items = train.select(list(spec.item)).take(first)
        users = [_plain(table[spec.user]) for table in tables]
        self._users = pc.unique(pa.concat_arrays(users))
        pairs = []
        for table, user in zip(tables, users, strict=True):
            codes = _codes(_plain(table[item]), self._items)
            of_users = _codes(user, self._users) * len(self._items)
            pairs.append((of_users + codes)[codes >= 0])
        self._pairs = np.unique(np.concatenate(pairs))
        known = np.bincount(self._pairs // len(self._items))
        if known.max() == len(self._items):
            user = self._users[int(known.argmax())].as_py()
            raise ValueError(
                "`data.negatives`: there is no item to draw for the user "
                f"{user!r}, who has interacted with all {len(self._items)} items."
            )

    def draw(
        self, users: pa.ChunkedArray, rows: np.ndarray, count: int, key: tuple[int, ...]
    ) -> np.ndarray:
        """Returns for each row `count` places in `items`, int64 [rows * count]."""
        num_items = len(self._items)
        first = np.repeat(_codes(_plain(users), self._users) * num_items, count)
        places = np.repeat(rows * count, count) + np.tile(np.arange(count), len(rows))
        items = np.zeros(len(places), np.int64)
        left = np.arange(len(places))
        attempt = 0
        while len(left):
            items[left] = order.below(num_items, places[left], *key, attempt)
            pairs = first[left] + items[left]
            found = np.minimum(
                np.searchsorted(self._pairs, pairs), len(self._pairs) - 1
            )
            left = left[self._pairs[found] == pairs]
            attempt += 1
        return items


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Returns a column as one array, without dictionary codes."""
    array = column.combine_chunks()
    is_coded = pa.types.is_dictionary(array.type)
    return array.cast(array.type.value_type) if is_coded else array


def _codes(values: pa.Array, known: pa.Array) -> np.ndarray:
    """Returns the place of each value among the known ones, -1 for unknown ones."""
    return (
        pc.index_in(values, value_set=known).fill_null(-1).to_numpy().astype(np.int64)
    )
