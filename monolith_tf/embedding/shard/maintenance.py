"""Maintenance of a store between steps: expiry, limits, growth."""

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.shard import counters
from monolith_tf.embedding.shard import expiry
from monolith_tf.embedding.shard.shard import COUNTERS
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.spec import TableSpec

_CHUNK_ROWS = 1 << 16  # Per hold of the lock, so that steps do not wait long.
_USUAL_SECS = 3600.0
_MIN_ROOM = 0.25
_LAST_ROOM = 0.05
_GROWTH = (1.0, 0.25)


@dataclasses.dataclass(frozen=True)
class MaintenanceReport:
    """What `EmbeddingStore.maintain` did.

    Attributes:
      expired: Table name -> rows dropped for their age.
      evicted: Table name -> rows dropped at the table's limit.
    """

    expired: dict[str, int]
    evicted: dict[str, int]


def maintain(
    shards: Mapping[str, Sequence[Shard]], step: int | None, now_secs: float
) -> MaintenanceReport:
    """See `EmbeddingStore.maintain`."""
    before = {name: counters.of_group(of_group) for name, of_group in shards.items()}
    for of_group in shards.values():
        for shard in of_group:
            if shard.admission is not None and shard.admission.sketch is not None:
                shard.admission.sketch.age()
            _expire(shard, step, now_secs)
        _evict(of_group, step)
    for of_group in shards.values():
        for shard in of_group:
            _make_room(shard)
    dropped: dict[str, dict[str, int]] = {"expired": {}, "evicted": {}}
    for name, of_group in shards.items():
        change = counters.of_group(of_group) - before[name]
        for counter, by_table in dropped.items():
            column = change[:, COUNTERS.index(counter)].tolist()
            names = [table.name for table in of_group[0].group.tables]
            by_table.update(zip(names, column, strict=True))
    return MaintenanceReport(dropped["expired"], dropped["evicted"])


def _expire(shard: Shard, step: int | None, now_secs: float) -> None:
    """Drops rows that are too old; returns at once if none can be yet."""
    if step is None and ("step" in shard.next_expiry or shard.group.tracks_updates):
        names = [table.name for table in shard.group.tables]
        raise ValueError(
            "`step` must be given where a table expires by steps, or updates are "
            f"tracked. Received: step=None, tables={names}."
        )
    now = {"step": math.inf if step is None else step, "secs": now_secs}
    if all(now[stamp] < moment for stamp, moment in shard.next_expiry.items()):
        return
    _check_clock(shard, now_secs)
    # No row that is updated from now on expires before this.
    earliest = shard.ages.shortest(now)

    def look(start: int, end: int) -> None:
        _, ids, stamps = shard.in_use(start, end)
        dead = shard.ages.expired(ids, stamps, now)
        shard.remove(ids[dead], "expired", step)
        alive = {name: stamp[~dead] for name, stamp in stamps.items()}
        for stamp, moment in shard.ages.next_expiry(ids[~dead], alive).items():
            earliest[stamp] = min(earliest[stamp], moment)

    for start, end in shard.ranges(_CHUNK_ROWS):
        shard.lock.run(look, start, end)
    shard.next_expiry = earliest


def _check_clock(shard: Shard, now_secs: float) -> None:
    """Raises ExpiryError if the clock jumped and too much of a table would expire.

    Counts nothing if the clock has moved no further than is usual between two calls.
    """
    before, shard.looked_at_secs = shard.looked_at_secs, now_secs
    if not shard.ages.go_by_clock or now_secs - before < _USUAL_SECS:
        return
    tables = shard.group.tables
    slots = [table.slot or 0 for table in tables]
    counts = np.zeros([len(tables), 2], np.int64)  # Dead rows, and all.
    for start, end in shard.ranges(_CHUNK_ROWS):
        _, ids, stamps = shard.lock.run(shard.in_use, start, end)
        dead = shard.ages.expired_by_clock(ids, stamps, now_secs)
        of_row = shard.group.slots_of(ids)
        for place, slot in enumerate(slots):
            mine = of_row == slot
            counts[place] += np.sum(dead & mine), np.sum(mine)
    try:
        for table, (num_dead, num_rows) in zip(tables, counts.tolist(), strict=True):
            expiry.check_share(table, num_dead, num_rows)
    except expiry.ExpiryError:
        shard.looked_at_secs = before
        raise


def _evict(shards: Sequence[Shard], step: int | None) -> None:
    """Evicts rows until the tables of a group, over all shards, meet their limits."""
    group = shards[0].group
    num_rows = counters.of_group(shards)[:, COUNTERS.index("rows")].tolist()
    for table, rows in zip(group.tables, num_rows, strict=True):
        count = expiry.check_limit(table, rows)
        if count:
            ids = expiry.oldest(*_ids_and_steps(shards, table), count)
            of_ids = layout.shard_of(tf.constant(ids), len(shards)).numpy()
            for number, shard in enumerate(shards):
                _remove(shard, ids[of_ids == number], "evicted", step)


def _remove(shard: Shard, ids: np.ndarray, counter: str, step: int | None) -> None:
    for start in range(0, len(ids), _CHUNK_ROWS):
        piece = ids[start : start + _CHUNK_ROWS]
        shard.lock.run(shard.remove, piece, counter, step)


def _ids_and_steps(
    shards: Sequence[Shard], table: TableSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all ids of a table, and the steps of their last updates."""
    ids, steps = [], []
    for shard in shards:
        for start, end in shard.ranges(_CHUNK_ROWS):
            _, in_use, stamps = shard.lock.run(shard.in_use, start, end)
            mine = shard.group.slots_of(in_use) == table.slot
            ids.append(in_use[mine])
            steps.append(stamps["step"][mine])
    return np.concatenate(ids), np.concatenate(steps)


def _room(shard: Shard) -> float:
    """Returns the free share of a shard's capacity."""
    capacity = int(shard.rows.capacity)
    return (capacity - 1 - _rows_in_use(shard)) / capacity


def _rows_in_use(shard: Shard) -> int:
    return int(shard.next_row) - 1 - int(shard.num_free)


def _make_room(shard: Shard) -> None:
    """Grows a shard when three quarters of its capacity are taken.

    Steps grow it too, if this is not enough. Growing it here shows how much memory is
    left, and warns early if it is short.
    """
    capacity = int(shard.rows.capacity)
    free = _room(shard)
    # The allocator blocks for a while before it fails, so a cramped shard asks again
    # only when almost no room is left.
    if free > (_LAST_ROOM if shard.is_cramped else _MIN_ROOM):
        return
    for share in _GROWTH:
        added = min(int(share * capacity) + 1, int(shard.rows.most_added))
        try:
            shard.reserve(capacity + added)
        except tf.errors.ResourceExhaustedError:
            # A step must not ask for that much either.
            shard.rows.most_added.assign(max(1, added // 4))
            continue
        if int(shard.rows.capacity) > capacity:
            shard.is_cramped = False
            return
    group = shard.group
    num_rows = _rows_in_use(shard)
    names = ", ".join(f"`{table.name}`" for table in group.tables)
    message = (
        f"There is no memory on {shard.device} for more rows of {names}: they hold "
        f"{num_rows} ids there, {num_rows * group.bytes_per_id} bytes. Give "
        "them limits by `max_rows` or `max_bytes` with `when_full` 'evict_oldest', let "
        "rows expire, or add shards on other machines."
    )
    if free <= _LAST_ROOM:
        raise expiry.TableFullError(message)
    shard.is_cramped = True
    logging.warning("%s There is room for %.0f%% more.", message, 100 * free)
