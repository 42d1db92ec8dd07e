"""When an id loses its row: by age, or when its table exceeds its limit."""

from collections.abc import Mapping

import numpy as np

from monolith_tf.embedding import row_size
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.ids import NUM_SLOTS

_SECS_PER_DAY = 86_400
_MIN_ROWS_CHECKED = 1000


class TableFullError(RuntimeError):
    """A table exceeds its limit, or there is no memory for more of its rows."""


class ExpiryError(RuntimeError):
    """So many rows would expire at once that the clock is probably wrong."""


class Ages:
    """The maximum ages of rows in a group's tables.

    Args:
      group: The tables.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._max_age: dict[str, np.ndarray] = {}  # Stamp -> age, by slot.
        for stamp, field, unit in (
            ("step", "expire_after_steps", 1),
            ("secs", "expire_after_days", _SECS_PER_DAY),
        ):
            limits = np.full(NUM_SLOTS, np.inf)
            for table in group.tables:
                limit = getattr(table, field)
                if limit is not None:
                    limits[table.slot] = limit * unit
            if np.isfinite(limits).any():
                self._max_age[stamp] = limits

    def expired(
        self,
        ids: np.ndarray,
        stamps: Mapping[str, np.ndarray],
        now: Mapping[str, float],
    ) -> np.ndarray:
        """Returns which rows have reached the maximum age of their table.

        Args:
          ids: Feature ids, `[n]`.
          stamps: "step" and "secs" of each row's last update, `[n]` each.
          now: The current "step" and "secs".

        Returns:
          `[n]`, bool.
        """
        dead = np.zeros(len(ids), bool)
        slots = self._group.slots_of(ids)
        for stamp, limits in self._max_age.items():
            dead |= now[stamp] - stamps[stamp] >= limits[slots]
        return dead

    @property
    def go_by_clock(self) -> bool:
        """Whether rows of any table expire by days."""
        return "secs" in self._max_age

    def expired_by_clock(
        self, ids: np.ndarray, stamps: Mapping[str, np.ndarray], now_secs: float
    ) -> np.ndarray:
        """Returns which rows expire by days, `[n]`, bool."""
        return self.expired(ids, stamps, {"step": -np.inf, "secs": now_secs})

    def never_looked(self) -> dict[str, float]:
        """Returns `next_expiry` for rows that have not been checked yet."""
        return dict.fromkeys(self._max_age, -np.inf)

    def shortest(self, now: Mapping[str, float]) -> dict[str, float]:
        """Returns the earliest moment at which a row updated now may expire."""
        return {
            stamp: now[stamp] + float(limits.min())
            for stamp, limits in self._max_age.items()
        }

    def next_expiry(
        self, ids: np.ndarray, stamps: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """Returns the earliest moment at which any of the rows may expire."""
        slots = self._group.slots_of(ids)
        return {
            stamp: float(np.min(stamps[stamp] + limits[slots], initial=np.inf))
            for stamp, limits in self._max_age.items()
        }


def check_share(table: TableSpec, num_dead: int, num_rows: int) -> None:
    """Checks that no more rows would expire by days at once than a table allows.

    Raises:
      ExpiryError: If more would.
    """
    if num_rows < _MIN_ROWS_CHECKED or num_dead <= table.max_expired_share * num_rows:
        return
    raise ExpiryError(
        f"Table `{table.name}`: {num_dead} of {num_rows} rows of a shard would expire "
        f"at once, more than max_expired_share={table.max_expired_share} allows; "
        f"expire_after_days={table.expire_after_days}. Nothing was dropped. Check this "
        "machine's clock. If it is right, for instance after a long pause of the job, "
        "set the table's `max_expired_share` to 1 until the job has gone on."
    )


def check_limit(table: TableSpec, num_rows: int) -> int:
    """Returns how many rows of a table must be evicted.

    Raises:
      TableFullError: If there are too many, and the table's `when_full` is "error".
    """
    limit = row_size.max_rows(table)
    if limit is None or num_rows <= limit:
        return 0
    if table.when_full == "error":
        which = "max_rows" if limit == table.max_rows else "max_bytes"
        raise TableFullError(
            f"Table `{table.name}` is full: it holds {num_rows} ids, "
            f"{num_rows * row_size.row_bytes(table)} bytes with optimizer state, and "
            f"{which}={getattr(table, which)} allows {limit} ids. Raise `{which}`, set "
            "`when_full` to 'evict_oldest', let rows expire by `expire_after_days` or "
            "`expire_after_steps`, or admit fewer ids by `admit_after`."
        )
    return num_rows - limit


def oldest(ids: np.ndarray, steps: np.ndarray, count: int) -> np.ndarray:
    """Returns the `count` ids updated longest ago; ties go to the smallest ids."""
    order = np.lexsort((ids, steps))
    return ids[order[:count]]
