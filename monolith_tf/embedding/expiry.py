"""When an id loses its row: by age, and where its table is over its limit."""

from collections.abc import Mapping

import numpy as np

from monolith_tf.embedding.layout import SLOT_SHIFT
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.spec import TableSpec

_SECS_PER_DAY = 86_400


class TableFullError(RuntimeError):
    """A table has more rows than it may have, or than there is memory for."""


def expired(
    group: Group,
    ids: np.ndarray,
    stamps: Mapping[str, np.ndarray],
    step: int | None,
    now_secs: float,
) -> np.ndarray:
    """Which rows have not been updated for as long as their table lets them live.

    Args:
      group: The tables.
      ids: Feature ids, `[n]`.
      stamps: "step" and "secs" of each row's last update, `[n]` each, where kept.
      step: The global step.
      now_secs: Seconds since 1970.

    Returns:
      `[n]`, bool.
    """
    dead = np.zeros(len(ids), bool)
    slots = ids >> SLOT_SHIFT
    for table in group.tables:
        old = np.zeros(len(ids), bool)
        if table.expire_after_steps is not None:
            if step is None:
                raise ValueError(
                    "`step` must be given, as a table expires by steps. "
                    f"Received: step=None, table={table.name!r}."
                )
            old |= step - stamps["step"] >= table.expire_after_steps
        if table.expire_after_days is not None:
            age_secs = now_secs - stamps["secs"]
            old |= age_secs >= table.expire_after_days * _SECS_PER_DAY
        dead |= old & (slots == table.slot)
    return dead


def expires(group: Group) -> bool:
    """Whether any table of a group has rows expire."""
    return any(
        table.expire_after_steps is not None or table.expire_after_days is not None
        for table in group.tables
    )


def row_limit(table: TableSpec, row_bytes: int) -> int | None:
    """Most rows of a table, None if there is no limit.

    Args:
      table: The table.
      row_bytes: Bytes of a row with optimizer state.
    """
    limits = []
    if table.max_rows is not None:
        limits.append(table.max_rows)
    if table.max_bytes is not None:
        limits.append(table.max_bytes // row_bytes)
    return min(limits) if limits else None


def check_limit(table: TableSpec, num_rows: int, row_bytes: int) -> int:
    """How many rows of a table must go.

    Raises:
      TableFullError: If there are too many, and the table wants that to be an error.
    """
    limit = row_limit(table, row_bytes)
    if limit is None or num_rows <= limit:
        return 0
    if table.when_full == "error":
        which = "max_rows" if limit == table.max_rows else "max_bytes"
        raise TableFullError(
            f"Table `{table.name}` is full: it holds {num_rows} ids, "
            f"{num_rows * row_bytes} bytes with optimizer state, and "
            f"{which}={getattr(table, which)} allows {limit} ids. Raise `{which}`, set "
            "`when_full` to 'evict_oldest', let rows expire by `expire_after_days` or "
            "`expire_after_steps`, or admit fewer ids by `admit_after`."
        )
    return num_rows - limit


def oldest(ids: np.ndarray, steps: np.ndarray, count: int) -> np.ndarray:
    """The `count` ids whose last update is longest ago; of equals the smallest ids."""
    order = np.lexsort((ids, steps))
    return ids[order[:count]]
