"""A first look at the rows that a read-only store will have."""

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
    """What was found of one table.

    Attributes:
      rows: Rows that are not zero as they are stored.
      dropped: Rows that are, which reading an unknown id gives anyway.
      end: One more than the largest value with a row: integer, or hash. None of a table
        that is exact.
      clipped: Rows with a number beyond what their slice holds.
    """

    rows: int
    dropped: int
    end: int | None
    clipped: int = 0


class Survey(NamedTuple):
    """What a first look at the rows found.

    Attributes:
      tables: Table -> what was found of it.
      wanted: The rows of the ids asked for.
    """

    tables: dict[str, Counted]
    wanted: list[RowChunk]

    def rows(self, group: Group) -> int:
        """Returns how many rows of a group's tables are kept."""
        return sum(self.tables[table.name].rows for table in group.tables)

    def dropped(self, group: Group) -> int:
        """Returns how many rows of a group's tables are not."""
        return sum(self.tables[table.name].dropped for table in group.tables)

    def ranges(self, integers: Collection[str]) -> dict[str, int]:
        """Returns the tables of small integers, as `FrozenStore` takes `ranges`.

        Their places take a chunk of memory at most, in all, and little beside the rows.

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
    """Counts rows, and picks some.

    Args:
      store: Where they will belong.
      rows: The rows.
      wanted: Ids whose rows are to be returned: those of each table that is exact, and
        for None those of all others.
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
    """Returns which rows are not zero as they are stored."""
    return np.logical_or.reduce([(values.numpy() != 0).any(1) for values in stored])
