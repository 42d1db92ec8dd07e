"""Estimates how often items occur in a stream of batches."""

import tensorflow as tf

from monolith_tf import ids
from monolith_tf.types import Tensor


class ItemInterval(tf.Module):
    """Moving average of the steps between two batches that hold an item.

        at step t, for each item of the batch, once:
            interval = (1 - decay) * interval + decay * (t - last_seen)
            last_seen = t

    in arrays of fixed size that are indexed by a hash of the item id, without a
    vocabulary. An item first seen at step t (from 0) starts with an interval of t + 1.
    If ids collide, the interval is too short; with several hashes, the longest is used.
    `batch_softmax_loss` uses the intervals.

    The two variables are not trained. As an attribute of a layer or model, this object
    is part of its checkpoints.

    Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", RecSys 2019, algorithm 2 and section 4.

    Args:
      num_buckets: Length of the arrays; several times the number of items.
      decay: Weight of the newest interval, above 0 and at most 1.
      num_hashes: Independent hashes, at least 1.
      name: Name of the module.

    Raises:
      ValueError: If an argument is out of range.

    Example:
      >>> frequency = ItemInterval(num_buckets=1024, decay=0.5)
      >>> for step in (0, 4, 8):
      ...     intervals = frequency([7], step)
      >>> intervals.numpy().tolist()  # 1, then (1 + 4) / 2, then (2.5 + 4) / 2
      [3.25]
    """

    def __init__(
        self,
        num_buckets: int,
        decay: float = 0.01,
        num_hashes: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if num_buckets < 1 or num_hashes < 1:
            raise ValueError(
                "`num_buckets` and `num_hashes` must be at least 1. "
                f"Received: num_buckets={num_buckets}, num_hashes={num_hashes}."
            )
        if not 0.0 < decay <= 1.0:
            raise ValueError(
                f"`decay` must be above 0 and at most 1. Received: decay={decay}."
            )
        self.decay = decay
        self._num_buckets = num_buckets
        self._num_hashes = num_hashes
        size = num_hashes * num_buckets
        self._last_seen = tf.Variable(
            tf.fill([size], tf.constant(-1, tf.int64)),
            trainable=False,
            name="last_seen",
        )
        self._intervals = tf.Variable(
            tf.zeros([size]), trainable=False, name="intervals"
        )

    def __call__(self, item_ids: Tensor, step: Tensor) -> Tensor:
        """Updates the intervals with a batch and returns those of its items.

        Args:
          item_ids: Integers `[batch]`; repeated ids count once.
          step: The global step, from 0. An item already seen at this step or a later
            one does not change.

        Returns:
          Float32 `[batch]`, including this step.
        """
        slots = self._slots(item_ids)  # [batch, hashes]
        step = tf.cast(step, tf.int64)
        last_seen = tf.gather(self._last_seen, slots)
        elapsed = tf.cast(step - last_seen, tf.float32)
        known = tf.gather(self._intervals, slots)
        moved = known + self.decay * (elapsed - known)
        intervals = tf.where(last_seen < 0, elapsed, moved)
        # Two workers may have the item at one step, or a slow one at an earlier step.
        intervals = tf.where(step > last_seen, intervals, known)
        newest = tf.maximum(step, last_seen)
        self._intervals.scatter_update(tf.IndexedSlices(intervals, slots))
        self._last_seen.scatter_update(tf.IndexedSlices(newest, slots))
        return tf.reduce_max(intervals, axis=1)

    def lookup(self, item_ids: Tensor) -> Tensor:
        """Returns the intervals of `item_ids` `[batch]`; 0 for those never seen."""
        return tf.reduce_max(tf.gather(self._intervals, self._slots(item_ids)), axis=1)

    def _slots(self, item_ids: Tensor) -> Tensor:
        hashes = ids.from_integers(item_ids)[:, tf.newaxis]  # [batch, 1]
        numbers = tf.range(self._num_hashes, dtype=tf.int64)
        hashes = ids.from_integers(tf.bitwise.bitwise_xor(hashes, numbers))
        return hashes % self._num_buckets + self._num_buckets * numbers
