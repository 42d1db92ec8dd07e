"""Counts the occurrences of ids that have no row yet."""

import dataclasses

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.id_table import IdTable
from monolith_tf.types import Tensor

_ODD = (  # One multiplier per row of a sketch.
    0x9E37_79B9_7F4A_7C15,
    0xBF58_476D_1CE4_E5B9,
    0x94D0_49BB_1331_11EB,
    0xD6E8_FEB8_6659_FD93,
)

_MOST_COUNTED = 1 << 30  # A cell stops here, so that int32 never overflows.


_PERIOD_SHIFT = 32
_COUNT_MASK = (1 << _PERIOD_SHIFT) - 1


@dataclasses.dataclass
class Inherited:
    """Counts that several shards received, and that are saved only once.

    Attributes:
      modulus: The counted ids have a hash that is `residue` modulo this.
      residue: See `modulus`.
      exported: The counts when they were received, as from `Sketch.export`.
      halvings: How often they have been halved since.
    """

    modulus: int
    residue: int
    exported: np.ndarray
    halvings: int = 0

    def now(self) -> np.ndarray:
        """Returns the counts after halving."""
        return self.exported >> self.halvings


class ExactCounts(Bindable):
    """One count per id; memory grows with the number of ids."""

    own = ("_seen",)

    def __init__(self) -> None:
        # The count, and in the upper bits the period in which it last changed.
        self._seen = IdTable()

    def admit(
        self,
        ids: Tensor,
        counts: Tensor,
        threshold: Tensor,
        period: Tensor | int = 0,
    ) -> Tensor:
        """Adds to the counts of ids and returns which have reached their threshold.

        Args:
          ids: Distinct ids, `[n]`.
          counts: Occurrences of each id in this batch, `[n]`, int64.
          threshold: `[n]`, int64.
          period: The shard's period, an int64 scalar.

        Returns:
          `[n]`, bool. Ids that have reached it are no longer counted.
        """
        seen = _count_of(self._seen.lookup(ids))
        total = tf.minimum(seen + counts, _COUNT_MASK)
        reached = total >= threshold
        waiting = tf.logical_not(reached)
        known = reached & (seen > 0)
        writes = [
            self._seen.insert(
                tf.boolean_mask(ids, waiting),
                tf.boolean_mask(total + _period_bits(period), waiting),
            ),
            self._seen.remove(tf.boolean_mask(ids, known)),
        ]
        with tf.control_dependencies(writes):
            return tf.identity(reached)

    def export(self, since: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Returns counted ids and their counts, ordered by id.

        Args:
          since: Only those whose count changed in this period or later.
        """
        ids, counts = (values.numpy() for values in self.changed(since))
        order = np.argsort(ids)
        return ids[order], counts[order]

    def changed(self, since: Tensor | int) -> tuple[Tensor, Tensor]:
        """As `export`, in no particular order."""
        ids, values = self._seen.export()
        where = tf.where(values >= _period_bits(since))[:, 0]
        return tf.gather(ids, where), _count_of(tf.gather(values, where))

    def load(self, ids: np.ndarray, counts: np.ndarray, period: int = 0) -> None:
        """Adds ids that are not counted yet, and their counts."""
        values = tf.constant(counts, tf.int64) + _period_bits(period)
        self._seen.insert(tf.constant(ids, tf.int64), values)

    def clear(self) -> None:
        """Resets all counts."""
        ids, _ = self._seen.export()
        self._seen.remove(ids)


class Sketch(Bindable):
    """A count-min sketch: never undercounts, in memory that does not grow.

    An id's count is the minimum of one cell per row; other ids may share those cells.
    All counts are halved from time to time, so that cells do not fill up; this forgets
    rare ids.

    Source: Cormode and Muthukrishnan, Journal of Algorithms 55, 2005; the halving from
    Einziger et al., "TinyLFU", ACM Transactions on Storage 13, 2017.

    Args:
      min_threshold: The lowest threshold in use. Counts are halved when the cells
        hold a quarter of it on average.
      width: Cells per row, a power of two; 16 MiB in all by default.

    Attributes:
      inherited: Counts that other shards hold too; None if there are none.
    """

    own = "_cells", "_total"
    shared = "_shift", "_width"

    def __init__(self, min_threshold: int, width: int = 1 << 20) -> None:
        self._shift = 64 - (width - 1).bit_length()
        self._width = width
        self._most = width * min_threshold // 4
        self._cells = tf.Variable(
            tf.zeros([len(_ODD) * width], tf.int32), trainable=False
        )
        self._total = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.inherited: Inherited | None = None

    def admit(self, ids: Tensor, counts: Tensor, threshold: Tensor) -> Tensor:
        """As `ExactCounts.admit`, but ids may reach their threshold early."""
        places = self._places(ids)  # [n, rows]
        added = tf.where(
            self._cells.sparse_read(places) < _MOST_COUNTED,
            tf.cast(tf.minimum(counts, _MOST_COUNTED), tf.int32)[:, tf.newaxis],
            0,
        )
        write = tf.raw_ops.ResourceScatterAdd(
            resource=self._cells.handle, indices=places, updates=added
        )
        with tf.control_dependencies([write]):
            least = tf.reduce_min(self._cells.sparse_read(places), axis=1)
        with tf.control_dependencies([self._total.assign_add(tf.reduce_sum(counts))]):
            return tf.cast(least, tf.int64) >= threshold

    def age(self) -> None:
        """Halves all counts when the cells fill up."""
        if int(self._total) > self._most:
            self._cells.assign(self._cells // 2)
            self._total.assign(self._total // 2)
            if self.inherited is not None:
                self.inherited.halvings += 1

    def export(self) -> np.ndarray:
        """Returns the cells, row after row, followed by the total, as int64.

        Sketches of disjoint ids add up to the sketch of all of them.
        """
        cells = self._cells.numpy().astype(np.int64)
        return np.append(cells, self._total.numpy())

    def load(self, exported: np.ndarray) -> None:
        """Replaces all counts."""
        self._cells.assign(np.minimum(exported[:-1], _MOST_COUNTED).astype(np.int32))
        self._total.assign(exported[-1])
        self.inherited = None

    def zeros(self) -> np.ndarray:
        """Returns what `export` returns before anything is counted."""
        return np.zeros([len(_ODD) * self._width + 1], np.int64)

    def inherit(self, inherited: Inherited) -> None:
        """Adds counts that other shards hold too."""
        self.load(self.export() + inherited.now())
        self.inherited = dataclasses.replace(inherited)

    def counted(self) -> np.ndarray:
        """As `export`, without the inherited counts."""
        exported = self.export()
        if self.inherited is None:
            return exported
        return np.maximum(0, exported - self.inherited.now())

    def clear(self) -> None:
        """Resets all counts."""
        self._cells.assign(tf.zeros_like(self._cells))
        self._total.assign(0)
        self.inherited = None

    def _places(self, ids: Tensor) -> Tensor:
        odd = tf.constant(_ODD, tf.uint64)
        mixed = tf.bitcast(ids, tf.uint64)[:, tf.newaxis] * odd
        cells = tf.bitwise.right_shift(mixed, tf.constant(self._shift, tf.uint64))
        starts = tf.range(len(_ODD), dtype=tf.int64) * self._width
        return tf.cast(cells, tf.int64) + starts


def _count_of(values: Tensor) -> Tensor:
    return tf.bitwise.bitwise_and(values, tf.constant(_COUNT_MASK, tf.int64))


def _period_bits(period: Tensor | int) -> Tensor:
    return tf.bitwise.left_shift(
        tf.cast(period, tf.int64), tf.constant(_PERIOD_SHIFT, tf.int64)
    )
