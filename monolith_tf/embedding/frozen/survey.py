"""A first pass over the rows that a read-only store will have."""

from collections.abc import Collection
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.frozen.store import RowChunk
from monolith_tf.embedding.frozen.store import Rows
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.saved.write import CHUNK_BYTES
from monolith_tf.ids import NUM_SLOTS
from monolith_tf.types import Tensor

_PLACE_BYTES = 4
_PLACES_PER_ROW = 8
_FEW_PLACES = 4096


class Counted(NamedTuple):
    """The counts of one table.

    Attributes:
      rows: Rows that are not zero in their stored form.
      dropped: Rows that are zero; they need no storage, as unknown ids read zeros.
      end: One more than the largest value (integer or hash) with a row; None for a
        table that is exact.
      clipped: Rows with a number outside of their slice's range.
    """

    rows: int
    dropped: int
    end: int | None
    clipped: int = 0


class Survey(NamedTuple):
    """The result of a first pass over the rows.

    Attributes:
      tables: Table -> its counts.
      wanted: The rows of the requested ids.
    """

    tables: dict[str, Counted]
    wanted: list[RowChunk]

    def rows(self, group: Group) -> int:
        """Returns how many rows of a group's tables are kept."""
        return sum(self.tables[table.name].rows for table in group.tables)

    def dropped(self, group: Group) -> int:
        """Returns how many rows of a group's tables are dropped."""
        return sum(self.tables[table.name].dropped for table in group.tables)

    def ranges(self, integers: Collection[str]) -> dict[str, int]:
        """Returns the tables of small integers, for the `ranges` of `FrozenStore`.

        Their arrays together take at most one chunk of memory, little compared with the
        rows.

        Args:
          integers: The tables of integers.
        """
        found: dict[str, int] = {}
        room = CHUNK_BYTES // _PLACE_BYTES
        for name in sorted(integers, key=lambda name: self.tables[name].end or 0):
            table = self.tables[name]
            if table.end is None or table.end > max(
                _FEW_PLACES, _PLACES_PER_ROW * table.rows
            ):
                continue
            room -= table.end + 1
            if room < 0:
                break
            found[name] = table.end
        return found


def survey(
    store: FrozenStore, rows: Rows, wanted: Mapping[str | None, np.ndarray]
) -> Survey:
    """Counts rows, and collects those of some ids.

    Args:
      store: The store that will hold the rows.
      rows: The rows.
      wanted: Ids whose rows to return: table name -> ids for each exact table, and None
        -> ids of all other tables.
    """
    kept, seen, ends, clips = np.zeros([4, NUM_SLOTS], np.int64)
    found = []
    chosen = {table: np.unique(ids) for table, ids in wanted.items()}
    for place, ids, weights in store.by_group(rows):
        frozen = store.groups[place]
        table = frozen.group.tables[0].name if frozen.group.is_exact else None
        asked = chosen.get(table, np.zeros([0], np.int64))
        slots, values = (x.numpy() for x in store.split(frozen, ids))
        stays = is_kept(frozen.compress(weights))
        beyond = (np.abs(weights) > frozen.largest()).any(axis=1)
        clips += np.bincount(slots[beyond], minlength=NUM_SLOTS)
        seen += np.bincount(slots, minlength=NUM_SLOTS)
        kept += np.bincount(slots[stays], minlength=NUM_SLOTS)
        if table is None:
            np.maximum.at(ends, slots[stays], values[stays] + 1)
        if len(asked):
            nearest = np.minimum(np.searchsorted(asked, ids), len(asked) - 1)
            mine = asked[nearest] == ids
            if mine.any():
                found.append(RowChunk(ids[mine], weights[mine], table))
    tables = {}
    for spec in store.tables:
        slot = spec.slot or 0
        end = None if spec.large_integers == "exact" else int(ends[slot])
        dropped = int(seen[slot] - kept[slot])
        tables[spec.name] = Counted(int(kept[slot]), dropped, end, int(clips[slot]))
    return Survey(tables, found)


def is_kept(stored: list[Tensor]) -> np.ndarray:
    """Returns which rows are not zero in their stored form."""
    return np.logical_or.reduce([(values.numpy() != 0).any(1) for values in stored])
