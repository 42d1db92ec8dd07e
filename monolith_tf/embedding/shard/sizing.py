"""What tables take, and how much room they are given."""

import dataclasses
import os
from collections.abc import Sequence

from monolith_tf.embedding import row_size
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.placement import Placement

_MIN_CAPACITY = 1 << 10
_MAX_CAPACITY = 1 << 25
_SHARE_OF_MEMORY = 1 / 32


@dataclasses.dataclass(frozen=True)
class TableInfo:
    """What `EmbeddingStore.describe` says of a table.

    Attributes:
      name: Its name.
      slot: Its slot.
      dim: Weights per row.
      rows: Ids that have a row.
      bytes: Memory of those rows, with optimizer state, bookkeeping and about what the
        index takes.
      devices: Where its shards live.
    """

    name: str
    slot: int
    dim: int
    rows: int
    bytes: int
    devices: tuple[str, ...]


def capacity(group: Group, groups: Sequence[Group], placement: Placement) -> int:
    """Rows that a shard of a group has room for at first.

    As many as fit its share of a 32nd of a machine's memory. More is not better:
    TensorFlow's allocator counts reserved memory as taken. Less would be slower: rows
    in one block are read faster than rows in several.
    """
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    devices = [placement.device(number) for number in range(placement.num_shards)]
    parts = len(groups) * max(devices.count(device) for device in devices)
    bookkeeping = row_size.bookkeeping_bytes(group.tables, group.tracks_updates)
    reserved = group.row_bytes + bookkeeping + row_size.ID_BYTES
    rows = int(machine_bytes * _SHARE_OF_MEMORY / (parts * reserved))
    return max(_MIN_CAPACITY, min(_MAX_CAPACITY, rows))
