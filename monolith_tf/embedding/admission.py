"""When an id earns a row: counting the occurrences of ids that have none."""

from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.layout import Group
from monolith_tf.types import Tensor


class ExactAdmission:
    """Counts every id that has no row, in memory that grows with their number.

    Args:
      group: The tables whose ids are counted.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._seen = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=0
        )

    def admit(self, ids: Tensor, counts: Tensor) -> Tensor:
        """Counts ids without a row and says which have now earned one.

        Args:
          ids: Distinct ids, `[n]`.
          counts: Occurrences of each in this batch, `[n]`, int64.

        Returns:
          `[n]`, bool. What is admitted is no longer counted.
        """
        admit_after = [table.admit_after for table in self._group.tables]
        threshold = tf.gather(
            tf.constant(admit_after, tf.int64), self._group.table_of(ids)
        )
        seen = tf.ensure_shape(self._seen.lookup(ids), [None])
        total = seen + counts
        admitted = total >= threshold
        waiting = tf.logical_not(admitted)
        known = admitted & (seen > 0)
        writes = [
            self._seen.insert(
                tf.boolean_mask(ids, waiting), tf.boolean_mask(total, waiting)
            ),
            self._seen.remove(tf.boolean_mask(ids, known)),
        ]
        with tf.control_dependencies(writes):
            return tf.identity(admitted)

    def export(self) -> tuple[np.ndarray, np.ndarray]:
        """All ids counted and their counts, ordered by id."""
        ids, counts = (values.numpy() for values in self._seen.export())
        order = np.argsort(ids)
        return ids[order], counts[order]

    def load(self, ids: Any, counts: Any) -> None:
        """Adds ids and their counts."""
        self._seen.insert(tf.constant(ids, tf.int64), tf.constant(counts, tf.int64))

    def clear(self) -> None:
        """Forgets all counts."""
        ids, _ = self._seen.export()
        self._seen.remove(ids)


def make(group: Group) -> ExactAdmission | None:
    """The admission of a group's shard, None where every id earns a row at once."""
    if not group.counts_occurrences:
        return None
    for table in group.tables:
        if table.admit_after > 1 and table.admission != "exact":
            raise ValueError(
                "`admission` must be 'exact'. "
                f"Received: name={table.name!r}, admission={table.admission!r}."
            )
    return ExactAdmission(group)
