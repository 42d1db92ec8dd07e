"""Counting the occurrences of ids that have no row yet."""

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

_MOST_COUNTED = 1 << 30  # Beyond it a cell stays, so that int32 never overflows.


@dataclasses.dataclass
class Inherited:
    """Counts that several shards were given, and that they must not save each.

    Attributes:
      modulus: They are of ids whose hash, modulo this, is `residue`.
      residue: See `modulus`.
      exported: As of `Sketch.export`, when they were given.
      halvings: How often they were halved since.
    """

    modulus: int
    residue: int
    exported: np.ndarray
    halvings: int = 0

    def now(self) -> np.ndarray:
        """What is left of them."""
        return self.exported >> self.halvings


class ExactCounts(Bindable):
    """One count per id, in memory that grows with their number."""

    own = ("_seen",)

    def __init__(self) -> None:
        self._seen = IdTable()

    def admit(self, ids: Tensor, counts: Tensor, threshold: Tensor) -> Tensor:
        """Adds to the counts of ids and says which have reached their threshold.

        Args:
          ids: Distinct ids, `[n]`.
          counts: Occurrences of each in this batch, `[n]`, int64.
          threshold: `[n]`, int64.

        Returns:
          `[n]`, bool. What has reached it is no longer counted.
        """
        seen = self._seen.lookup(ids)
        total = seen + counts
        reached = total >= threshold
        waiting = tf.logical_not(reached)
        known = reached & (seen > 0)
        writes = [
            self._seen.insert(
                tf.boolean_mask(ids, waiting), tf.boolean_mask(total, waiting)
            ),
            self._seen.remove(tf.boolean_mask(ids, known)),
        ]
        with tf.control_dependencies(writes):
            return tf.identity(reached)

    def export(self) -> tuple[np.ndarray, np.ndarray]:
        """All ids counted and their counts, ordered by id."""
        ids, counts = (values.numpy() for values in self._seen.export())
        order = np.argsort(ids)
        return ids[order], counts[order]

    def load(self, ids: np.ndarray, counts: np.ndarray) -> None:
        """Adds ids that are not counted yet, and their counts."""
        self._seen.insert(tf.constant(ids, tf.int64), tf.constant(counts, tf.int64))

    def clear(self) -> None:
        """Forgets all counts."""
        ids, _ = self._seen.export()
        self._seen.remove(ids)


class Sketch(Bindable):
    """A count-min sketch: never counts too few, in memory that does not grow.

    An id's count is the least of one cell in each row, which other ids may share. So
    that these do not fill up, all counts are halved from time to time, which forgets
    ids that are seldom seen.

    Source: Cormode and Muthukrishnan, Journal of Algorithms 55, 2005; the halving from
    Einziger et al., "TinyLFU", ACM Transactions on Storage 13, 2017.

    Args:
      min_threshold: The lowest count that is asked for. Counts are halved when the
        cells hold a quarter of it on average.
      width: Cells per row, a power of two; 16 MiB in all by default.

    Attributes:
      inherited: What other shards hold too, None where there is nothing.
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
        """As `ExactCounts.admit`, but an id may be said to have reached it early."""
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
        """Halves all counts if there are many."""
        if int(self._total) > self._most:
            self._cells.assign(self._cells // 2)
            self._total.assign(self._total // 2)
            if self.inherited is not None:
                self.inherited.halvings += 1

    def export(self) -> np.ndarray:
        """The cells, `[rows, width]`, and as an int64 behind them the total.

        Sketches of disjoint ids add up to the sketch of all of them.
        """
        cells = self._cells.numpy().astype(np.int64)
        return np.append(cells, self._total.numpy())

    def load(self, exported: np.ndarray) -> None:
        """Replaces everything."""
        self._cells.assign(np.minimum(exported[:-1], _MOST_COUNTED).astype(np.int32))
        self._total.assign(exported[-1])
        self.inherited = None

    def zeros(self) -> np.ndarray:
        """What `export` returns before anything is counted."""
        return np.zeros([len(_ODD) * self._width + 1], np.int64)

    def inherit(self, inherited: Inherited) -> None:
        """Adds counts that other shards have too."""
        self.load(self.export() + inherited.now())
        self.inherited = dataclasses.replace(inherited)

    def counted(self) -> np.ndarray:
        """As `export`, without what was inherited."""
        exported = self.export()
        if self.inherited is None:
            return exported
        return np.maximum(0, exported - self.inherited.now())

    def clear(self) -> None:
        """Forgets all counts."""
        self._cells.assign(tf.zeros_like(self._cells))
        self._total.assign(0)
        self.inherited = None

    def _places(self, ids: Tensor) -> Tensor:
        odd = tf.constant(_ODD, tf.uint64)
        mixed = tf.bitcast(ids, tf.uint64)[:, tf.newaxis] * odd
        cells = tf.bitwise.right_shift(mixed, tf.constant(self._shift, tf.uint64))
        starts = tf.range(len(_ODD), dtype=tf.int64) * self._width
        return tf.cast(cells, tf.int64) + starts
