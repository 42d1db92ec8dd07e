"""A hash table from ids to numbers."""

import tensorflow as tf

from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.types import Tensor


class IdTable(Bindable):
    """Maps ids to numbers, both int64; missing ids map to 0.

    Attributes:
      handle: Handle of the hash table.
    """

    own = ("handle",)

    def __init__(self) -> None:
        self._table = (
            tf.lookup.experimental.MutableHashTable(  # Keeps the handle alive.
                tf.int64, tf.int64, default_value=0
            )
        )
        self.handle = self._table.resource_handle

    def lookup(self, ids: Tensor) -> Tensor:
        """Returns the ids' numbers, `[n]`."""
        found = tf.raw_ops.LookupTableFindV2(
            table_handle=self.handle,
            keys=ids,
            default_value=tf.constant(0, tf.int64),
        )
        return tf.ensure_shape(found, [None])

    def insert(self, ids: Tensor, numbers: Tensor) -> tf.Operation:
        """Sets the numbers of distinct ids."""
        return tf.raw_ops.LookupTableInsertV2(
            table_handle=self.handle, keys=ids, values=numbers
        )

    def remove(self, ids: Tensor) -> tf.Operation:
        """Removes ids."""
        return tf.raw_ops.LookupTableRemoveV2(table_handle=self.handle, keys=ids)

    def size(self) -> Tensor:
        """Returns the number of ids."""
        return tf.raw_ops.LookupTableSizeV2(table_handle=self.handle)

    def export(self) -> tuple[Tensor, Tensor]:
        """Returns all ids and their numbers."""
        found = tf.raw_ops.LookupTableExportV2(
            table_handle=self.handle, Tkeys=tf.int64, Tvalues=tf.int64
        )
        return found.keys, found.values
