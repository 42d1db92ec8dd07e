"""The signature that updates the rows of a served model."""

import functools
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.export import refusals
from monolith_tf.export import row_room
from monolith_tf.export import signatures
from monolith_tf.export import update_state
from monolith_tf.lineage import Lineage
from monolith_tf.types import Tensor

KEY = "update_embeddings"
EXACT = "/exact"
"""The suffix of an exact table's name in the signature."""


class Updates(update_state.UpdateState):
    """The number of used rows of a frozen store, and the step it has reached.

    Args:
      store: The store, with some spare rows.
      num_rows: Rows in use, for each of its groups.
      step: The global step at which they were trained.
      lineage: The lineage of the job that trained them.
    """

    def __init__(
        self,
        store: FrozenStore,
        num_rows: Sequence[int],
        step: int,
        lineage: Lineage,
    ) -> None:
        super().__init__(step, lineage)
        self._store = store
        self.room = [row_room.RowRoom(number) for number in num_rows]

    @tf.autograph.experimental.do_not_convert
    def apply(
        self,
        table: Tensor,
        ids: Tensor,
        rows: Tensor,
        step: Tensor,
        token: Tensor,
        lineage: Tensor,
        newest: Tensor,
    ) -> dict[str, Tensor]:
        """Writes rows, and gives ids without one a spare row.

        A row is written before its id can be found. Applying a request twice has the
        same effect as once; a refused request changes nothing. A request without rows
        and with step 0 only reads.

        Args:
          table: Name of the ids' table, a scalar, followed by `EXACT` if it is exact.
          ids: Feature ids, `[n]`, or the integers themselves for an exact table; the
            last of equal ids wins.
          rows: Their weights, `[n, dim]`. Zeros take no spare row. Numbers that are not
            finite, or out of range for the table's `compressor`, are refused.
          step: As in `update_state.Sender`, and so are the others.
          token: See there.
          lineage: See there.
          newest: See there.
        """
        sender = update_state.Sender(step, token, lineage, newest)
        places = Places(self._store, KEY)
        checks = places.check_ids(table, ids)
        with tf.control_dependencies(checks):
            checks = places.check_rows(table, ids, rows)
        with tf.control_dependencies(checks):
            checks = [
                *places.check_size(table, rows),
                *self.checked_steps(KEY, sender),
            ]
        with tf.control_dependencies(checks):
            place = places.group_of(table)
        with tf.control_dependencies(checks), update_state.locked() as lock:
            mine, same = self.checked_token(KEY, token)
            changes = (tf.size(ids) > 0) | (step > 0)
            with tf.control_dependencies([same]):
                related = self.related(KEY, lineage, newest, changes)
            with tf.control_dependencies(related):
                inserted, used, capacity = tf.switch_case(
                    place,
                    [
                        functools.partial(self._apply, i, ids, rows)
                        for i in range(len(self._store.groups))
                    ],
                )
            with tf.control_dependencies([inserted]):
                reached, written = self.moved(sender, mine, changes)
            lock.release(written)
            return lock.after(
                {
                    "inserted": inserted,
                    "rows": used,
                    "capacity": capacity - 1,
                    "step": reached,
                    "token": mine,
                }
            )

    def _apply(
        self, place: int, ids: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Writes to one group; returns ids inserted, rows in use, and capacity.

        The index gets a new id only after its row is written and counted as used, so a
        concurrent lookup finds either zeros or the whole row.
        """
        group, room = self._store.groups[place], self.room[place]
        keys, places = tf.unique(self._store.keys(group, ids), tf.int64)
        last = tf.math.unsorted_segment_max(
            tf.range(tf.size(places, tf.int64)), places, tf.size(keys)
        )
        rows = tf.gather(tf.reshape(rows, [-1, group.group.dim]), last)
        numbers = group.index.find(keys)
        is_zero = tf.reduce_all(rows == 0.0, axis=1)
        is_new, is_gone = (numbers == 0) & ~is_zero, (numbers > 0) & is_zero
        order = tf.cumsum(tf.cast(is_new, tf.int64))  # 1 for the first new id.
        count = tf.reduce_sum(tf.cast(is_new, tf.int64))
        capacity = group.capacity()
        given = room.take(count, capacity, KEY)
        with tf.control_dependencies([given]):
            of_new = tf.gather(tf.concat([[0], given], axis=0), order)
            numbers = tf.where(is_new, of_new, numbers)
        gone = tf.boolean_mask(numbers, is_gone)
        writes = group.write(
            tf.boolean_mask(numbers, ~is_zero), tf.boolean_mask(rows, ~is_zero)
        )
        with tf.control_dependencies(writes):
            taken = room.taken(count)
        with tf.control_dependencies(taken):
            published = group.index.insert(
                tf.boolean_mask(keys, is_new), tf.boolean_mask(numbers, is_new)
            )
        with tf.control_dependencies([published]):
            removed = group.index.remove(tf.boolean_mask(keys, is_gone))
        with tf.control_dependencies([removed]):
            resting = room.rest(gone, capacity)
        with tf.control_dependencies([resting]):
            return tf.identity(count), room.in_use(), capacity


class Places:
    """The groups and properties of tables, as tensors of the graph.

    Args:
      store: The store of the tables.
      key: Key of the signature, for errors.
    """

    def __init__(self, store: FrozenStore, key: str) -> None:
        self._key = key
        self._names = [update_name(table) for table in store.tables]
        self._is_exact = [t.large_integers == "exact" for t in store.tables]
        self._slots = [table.slot for table in store.tables]
        groups = [(i, g) for i, g in enumerate(store.groups) for _ in g.group.tables]
        self._groups = [i for i, _ in groups]
        self._dims = [group.group.dim for _, group in groups]
        widest = max(self._dims)
        self._largest = np.stack(
            [
                np.pad(group.largest_taken(), (0, widest - group.group.dim))
                for _, group in groups
            ]
        )

    def slot_of(self, table: Tensor) -> Tensor:
        """Returns the slot of a table."""
        return tf.gather(tf.constant(self._slots, tf.int64), self._number(table))

    def group_of(self, table: Tensor) -> Tensor:
        """Returns the index of a table's group."""
        return tf.gather(tf.constant(self._groups, tf.int32), self._number(table))

    def check_ids(self, table: Tensor, ids: Tensor) -> list[tf.Operation]:
        """Returns operations that fail for an unknown table, or ids of another."""
        number = self._number(table)
        slot = self.slot_of(table)
        is_exact = tf.gather(tf.constant(self._is_exact), number)
        known = tf.reduce_any(tf.equal(table, self._names))
        facts = [
            (
                known,
                f"{refusals.UNKNOWN_TABLE}; the model has {self._names}. Received:",
                table,
            ),
            (
                is_exact | tf.reduce_all((ids >= 0) & (layout.slot_of(ids) == slot)),
                "an id is not of the table:",
                table,
            ),
        ]
        checks: list[tf.Operation] = []
        for fact, message, value in facts:
            # In order, so the error names the first check that fails.
            with tf.control_dependencies(checks):
                check = tf.debugging.Assert(
                    fact, [f"{self._key}: {message}", value], summarize=8
                )
            checks = [check]
        return checks

    def check_rows(
        self, table: Tensor, ids: Tensor, rows: Tensor
    ) -> list[tf.Operation]:
        """Returns operations that fail for rows of another shape."""
        dim = tf.gather(tf.constant(self._dims, tf.int64), self._number(table))
        size, shape = tf.size(ids, tf.int64), tf.shape(rows, tf.int64)
        return [
            tf.debugging.Assert(
                tf.reduce_all(shape == tf.stack([size, dim])),
                [
                    f"{self._key}: rows must have shape [n, dim], for n ids. Received "
                    "n, dim, and shape:",
                    tf.concat([[size, dim], shape], axis=0),
                ],
                summarize=8,
            )
        ]

    def check_size(self, table: Tensor, rows: Tensor) -> list[tf.Operation]:
        """Returns operations that fail for numbers that the table cannot hold."""
        finite = tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(rows)),
            [
                f"{self._key}: rows must be finite. The row of the first that is not:",
                tf.where(~tf.math.is_finite(rows))[:1, 0],
            ],
        )
        largest = tf.gather(tf.constant(self._largest), self._number(table))
        beyond = tf.abs(rows) > largest[: tf.shape(rows)[1]]
        with tf.control_dependencies([finite]):
            held = tf.debugging.Assert(
                ~tf.reduce_any(beyond),
                [
                    f"{self._key}: rows must be {refusals.BEYOND}. Row, column and "
                    "value of the first that is not:",
                    tf.where(beyond)[:1],
                    tf.boolean_mask(rows, beyond)[:1],
                ],
            )
        return [finite, held]

    def _number(self, table: Tensor) -> Tensor:
        return tf.argmax(tf.cast(tf.equal(table, self._names), tf.int32))


def update_name(table: TableSpec) -> str:
    """Returns a table's name in the signature.

    An export made before the table became exact has other ids; it refuses the name
    with the suffix as unknown.
    """
    return table.name + (EXACT if table.large_integers == "exact" else "")


class Update(signatures.Signature):
    """The signature."""

    joins_rows = False

    def __init__(self, updates: Updates, store: FrozenStore) -> None:
        self.specs = {
            "table": tf.TensorSpec([], tf.string, name="table"),
            "ids": tf.TensorSpec([None], tf.int64, name="ids"),
            "rows": tf.TensorSpec([None, None], tf.float32, name="rows"),
            **update_state.SPECS,
        }
        self._updates = updates
        self._store = store

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        return self._updates.apply(**tensors)

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class; the request changes nothing."""
        del sample
        group = self._store.groups[0].group
        return {
            "table": np.array(update_name(group.tables[0]).encode(), object),
            "ids": np.zeros([0], np.int64),
            "rows": np.zeros([0, group.dim], np.float32),
            "step": np.array(0, np.int64),
            "token": np.array(0, np.int64),
            "lineage": np.array(self._updates.lineage.numpy(), object),
            "newest": np.array(0, np.int64),
        }

    def expected(
        self, sample: Mapping[str, Tensor], answer: signatures.Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        del sample, answer
        used = self._updates.room[0].in_use().numpy()
        step = self._updates.step.numpy()
        return {"inserted": np.int64(0), "rows": used, "step": step}
