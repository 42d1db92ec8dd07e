"""Memory per row, and the row limit of a table; does not import TensorFlow.

A store keeps all tables of one layout in the same arrays, so bookkeeping that one of
them needs is kept for the rows of all.
"""

from collections.abc import Sequence

from monolith_tf.embedding.optimizers import row_state
from monolith_tf.embedding.spec import TableSpec

ID_BYTES = 8
"""Bytes of a row's id, or of a freed row's number."""
_FLOAT_BYTES = 4
_STAMP_BYTES = 8
_INDEX_BYTES = 43  # A node of a hash map, and its share of the buckets.


def layout_key(
    table: TableSpec,
) -> tuple[str | None, str | None, tuple[tuple, ...]]:
    """Returns a key that is equal for tables whose rows share the same arrays."""
    slices = tuple(
        (part.name, part.dim, part.optimizer.kind) for part in table.row_slices()
    )
    alone = table.name if table.large_integers == "exact" else None
    return alone, table.update_rows, slices


def row_bytes(table: TableSpec) -> int:
    """Returns the bytes of a row's weights and optimizer state."""
    return _FLOAT_BYTES * sum(
        part.dim + row_state.state_dim(part.optimizer.kind, part.dim)
        for part in table.row_slices()
    )


def keeps_step(tables: Sequence[TableSpec], tracks_updates: bool) -> bool:
    """Returns whether rows keep the step of their last update.

    Args:
      tables: All tables of one layout.
      tracks_updates: Whether the store can list the rows that changed since a step.
    """
    return tracks_updates or any(
        table.expire_after_steps is not None or table.when_full == "evict_oldest"
        for table in tables
    )


def keeps_secs(tables: Sequence[TableSpec]) -> bool:
    """Returns whether rows keep the time of their last update."""
    return any(table.expire_after_days is not None for table in tables)


def bookkeeping_bytes(tables: Sequence[TableSpec], tracks_updates: bool) -> int:
    """Returns the bytes of a row's id, its step and time, and its last change."""
    stamps = keeps_step(tables, tracks_updates) + keeps_secs(tables) + tracks_updates
    return ID_BYTES + _STAMP_BYTES * stamps


def bytes_per_id(tables: Sequence[TableSpec], tracks_updates: bool) -> int:
    """Returns the bytes of one more id in any of the tables, with its index entry."""
    return (
        row_bytes(tables[0]) + bookkeeping_bytes(tables, tracks_updates) + _INDEX_BYTES
    )


def max_rows(table: TableSpec) -> int | None:
    """Returns a table's row limit or None; `max_bytes` counts only `row_bytes`."""
    limits = []
    if table.max_rows is not None:
        limits.append(table.max_rows)
    if table.max_bytes is not None:
        limits.append(table.max_bytes // row_bytes(table))
    return min(limits) if limits else None
