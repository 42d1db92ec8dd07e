"""What a row takes in memory, and how many a table may have; free of TensorFlow.

A store keeps the tables of one layout in the same arrays, so what one of them asks to
be kept beside a row is kept beside the rows of all.
"""

from collections.abc import Sequence

from monolith_tf.embedding.optimizers import row_state
from monolith_tf.embedding.spec import TableSpec

ID_BYTES = 8
"""Of a row's own id, or of a freed row's number."""
_FLOAT_BYTES = 4
_STAMP_BYTES = 8
_INDEX_BYTES = 43  # A node of a hash map, and its share of the buckets.


def layout_key(
    table: TableSpec,
) -> tuple[str | None, str | None, tuple[tuple, ...]]:
    """Equal for tables whose rows are kept in the same arrays."""
    slices = tuple(
        (part.name, part.dim, part.optimizer.kind) for part in table.row_slices()
    )
    alone = table.name if table.large_integers == "exact" else None
    return alone, table.update_rows, slices


def row_bytes(table: TableSpec) -> int:
    """Bytes of a row's weights and optimizer state."""
    return _FLOAT_BYTES * sum(
        part.dim + row_state.state_dim(part.optimizer.kind, part.dim)
        for part in table.row_slices()
    )


def keeps_step(tables: Sequence[TableSpec], tracks_updates: bool) -> bool:
    """Whether the step of a row's last update is kept.

    Args:
      tables: All tables of one layout.
      tracks_updates: Whether the store lists which rows changed since a step.
    """
    return tracks_updates or any(
        table.expire_after_steps is not None or table.when_full == "evict_oldest"
        for table in tables
    )


def keeps_secs(tables: Sequence[TableSpec]) -> bool:
    """Whether the time of a row's last update is kept."""
    return any(table.expire_after_days is not None for table in tables)


def bookkeeping_bytes(tables: Sequence[TableSpec], tracks_updates: bool) -> int:
    """Bytes of a row beside weights and state: its id, and its stamps."""
    stamps = keeps_step(tables, tracks_updates) + keeps_secs(tables)
    return ID_BYTES + _STAMP_BYTES * stamps


def bytes_per_id(tables: Sequence[TableSpec], tracks_updates: bool) -> int:
    """Bytes that one more id takes in any of the tables, its index entry included."""
    return (
        row_bytes(tables[0]) + bookkeeping_bytes(tables, tracks_updates) + _INDEX_BYTES
    )


def max_rows(table: TableSpec) -> int | None:
    """The most rows that a table may have, or None; `max_bytes` is of `row_bytes`."""
    limits = []
    if table.max_rows is not None:
        limits.append(table.max_rows)
    if table.max_bytes is not None:
        limits.append(table.max_bytes // row_bytes(table))
    return min(limits) if limits else None
