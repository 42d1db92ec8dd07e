"""What is done to a store between steps: expiry, limits, growth."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import expiry
from monolith_tf.embedding import layout
from monolith_tf.embedding.layout import SLOT_SHIFT
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.shard_rows import COUNTERS
from monolith_tf.embedding.shard_rows import ShardRows
from monolith_tf.embedding.spec import TableSpec

_CHUNK_ROWS = 1 << 20
_MIN_ROOM = 0.25


@dataclasses.dataclass(frozen=True)
class MaintenanceReport:
    """What `EmbeddingStore.maintain` did.

    Attributes:
      expired: Table name -> rows dropped for their age.
      evicted: Table name -> rows dropped at the table's limit.
      retrace: Whether variables were replaced to make room: functions that were traced
        before fail at their next call and must be traced again.
    """

    expired: dict[str, int]
    evicted: dict[str, int]
    retrace: bool


def maintain(
    shards: dict[str, Sequence[ShardRows]], step: int | None, now_secs: float
) -> MaintenanceReport:
    """See `EmbeddingStore.maintain`."""
    before = {name: _totals(of_group) for name, of_group in shards.items()}
    for of_group in shards.values():
        if expiry.expires(of_group[0].group):
            _expire(of_group, step, now_secs)
        _evict(of_group)
    retrace = False
    for of_group in shards.values():
        for shard in of_group:
            retrace |= _make_room(shard)
    dropped: dict[str, dict[str, int]] = {"expired": {}, "evicted": {}}
    for name, of_group in shards.items():
        change = _totals(of_group) - before[name]
        for counter, by_table in dropped.items():
            column = change[:, COUNTERS.index(counter)].tolist()
            names = [table.name for table in of_group[0].group.tables]
            by_table.update(zip(names, column, strict=True))
    return MaintenanceReport(dropped["expired"], dropped["evicted"], retrace)


def row_bytes(group: Group) -> int:
    """Bytes of one row's weights and optimizer state."""
    return 4 * group.width


def _totals(shards: Sequence[ShardRows]) -> np.ndarray:
    return sum(shard.counters.numpy() for shard in shards)  # [tables, counters]


def _expire(shards: Sequence[ShardRows], step: int | None, now_secs: float) -> None:
    for shard in shards:
        for chunk in shard.chunks(_CHUNK_ROWS, with_rows=False):
            dead = expiry.expired(shard.group, chunk.ids, chunk.stamps, step, now_secs)
            shard.remove(chunk.ids[dead], COUNTERS.index("expired"))


def _evict(shards: Sequence[ShardRows]) -> None:
    """Brings the tables of a group down to their limits, over all its shards."""
    group = shards[0].group
    num_rows = _totals(shards)[:, COUNTERS.index("rows")].tolist()
    for table, rows in zip(group.tables, num_rows, strict=True):
        count = expiry.check_limit(table, rows, row_bytes(group))
        if count:
            ids = expiry.oldest(*_ids_and_steps(shards, table), count)
            of_ids = layout.shard_of(tf.constant(ids), len(shards)).numpy()
            for number, shard in enumerate(shards):
                shard.remove(ids[of_ids == number], COUNTERS.index("evicted"))


def _ids_and_steps(
    shards: Sequence[ShardRows], table: TableSpec
) -> tuple[np.ndarray, np.ndarray]:
    """All ids of a table, and the steps of their last updates."""
    ids, steps = [], []
    for shard in shards:
        for chunk in shard.chunks(_CHUNK_ROWS, with_rows=False):
            mine = chunk.ids >> SLOT_SHIFT == table.slot
            ids.append(chunk.ids[mine])
            steps.append(chunk.stamps["step"][mine])
    return np.concatenate(ids), np.concatenate(steps)


def _make_room(shard: ShardRows) -> bool:
    """Doubles a shard's room when three quarters of it are taken."""
    capacity = int(shard.capacity)
    used = int(shard.next_row) - int(shard.num_free)
    if capacity - used > _MIN_ROOM * capacity:
        return False
    try:
        return shard.reserve(2 * capacity)
    except tf.errors.ResourceExhaustedError:
        group = shard.group
        names = ", ".join(f"`{table.name}`" for table in group.tables)
        raise expiry.TableFullError(
            f"There is no memory on {shard.device} for more rows of {names}: they hold "
            f"{used} ids there, {used * layout.bytes_per_row(group)} bytes, and need "
            "room for twice as many. Give them limits by `max_rows` or `max_bytes` "
            "with `when_full` 'evict_oldest', let rows expire, or add shards on other "
            "machines."
        ) from None
