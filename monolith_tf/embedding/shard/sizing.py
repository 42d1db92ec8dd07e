"""The memory that tables take, and the initial capacity of their shards."""

import dataclasses
import os
from collections.abc import Mapping
from collections.abc import Sequence

from monolith_tf.embedding import row_size
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import TableSpec

_MIN_CAPACITY = 1 << 10
_MAX_CAPACITY = 1 << 25
_SHARE_OF_MEMORY = 1 / 32


@dataclasses.dataclass(frozen=True)
class TableInfo:
    """What `EmbeddingStore.describe` returns for a table.

    Attributes:
      name: Its name.
      slot: Its slot.
      dim: Weights per row.
      rows: Ids that have a row.
      bytes: Memory of those rows, with optimizer state, bookkeeping and an estimate of
        the index.
      devices: Devices of its shards.
    """

    name: str
    slot: int
    dim: int
    rows: int
    bytes: int
    devices: tuple[str, ...]


def describe(
    tables: Sequence[TableSpec],
    counters: Mapping[str, Mapping[str, int]],
    placement: Placement,
) -> list[TableInfo]:
    """Returns size and devices of every table, from `counters.of_tables`."""
    devices = tuple(map(placement.device, range(placement.num_shards)))
    return [
        TableInfo(
            name=table.name,
            slot=table.slot or 0,
            dim=table.row_dim,
            rows=counters[table.name]["rows"],
            bytes=counters[table.name]["bytes"],
            devices=devices,
        )
        for table in tables
    ]


def capacity(group: Group, groups: Sequence[Group], placement: Placement) -> int:
    """Returns the initial capacity of a shard of a group, in rows.

    As many rows as fit its share of 1/32 of a machine's memory. More is no better:
    TensorFlow's allocator counts reserved memory as taken. Fewer is slower: rows in one
    block are read faster than rows in several.
    """
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    devices = [placement.device(number) for number in range(placement.num_shards)]
    parts = len(groups) * max(devices.count(device) for device in devices)
    bookkeeping = row_size.bookkeeping_bytes(group.tables, group.tracks_updates)
    reserved = group.row_bytes + bookkeeping + row_size.ID_BYTES
    rows = int(machine_bytes * _SHARE_OF_MEMORY / (parts * reserved))
    return max(_MIN_CAPACITY, min(_MAX_CAPACITY, rows))
