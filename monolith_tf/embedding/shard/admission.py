"""Admission: when an id gets a row."""

import tensorflow as tf

from monolith_tf.embedding import initializers
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.shard import counting
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.types import Tensor

_STRIDE = 0x2545_F491_4F6C_DD1D  # Spreads the keys of consecutive steps.


class Admission(Bindable):
    """Admits ids of a group's tables, each by the policy of its table.

    Attributes:
      exact: Counts for tables that count exactly; None if no table does.
      sketch: Counts for tables that count by a sketch; None if no table does.

    Args:
      group: The tables.
      seed: Seed of probabilistic admission.
    """

    own = "exact", "sketch", "_key"
    shared = "_thresholds", "_policies"

    def __init__(self, group: Group, seed: int) -> None:
        self._key = tf.Variable(draw_key(seed), dtype=tf.int64, trainable=False)
        self._thresholds = tuple(table.admit_after for table in group.tables)
        self._policies = tuple(
            table.admission if table.admit_after > 1 else "" for table in group.tables
        )
        self.exact: counting.ExactCounts | None = None
        self.sketch: counting.Sketch | None = None
        if "exact" in self._policies:
            self.exact = counting.ExactCounts()
        if "sketch" in self._policies:
            self.sketch = counting.Sketch(
                min(
                    threshold
                    for threshold, policy in zip(
                        self._thresholds, self._policies, strict=True
                    )
                    if policy == "sketch"
                )
            )

    def admit(
        self,
        ids: Tensor,
        tables: Tensor,
        counts: Tensor,
        step: Tensor,
        period: Tensor | int = 0,
    ) -> Tensor:
        """Counts ids without a row and returns which of them get one now.

        Args:
          ids: Distinct ids, `[n]`.
          tables: Index of each id's table in the group, `[n]`, int32.
          counts: Occurrences of each id in this batch, `[n]`, int64.
          step: The global step, int64; `()` if no table is probabilistic.
          period: The shard's period, int64.

        Returns:
          `[n]`, bool.
        """
        threshold = tf.gather(tf.constant(self._thresholds, tf.int64), tables)
        policies = list(dict.fromkeys(self._policies))
        if len(policies) == 1:
            return self._admit(policies[0], ids, counts, threshold, step, period)
        numbers = [policies.index(policy) for policy in self._policies]
        of_ids = tf.gather(tf.constant(numbers), tables)
        admitted = tf.ones_like(ids, tf.bool)
        for number, policy in enumerate(policies):
            if policy:
                mine = tf.where(tf.equal(of_ids, number))  # [of this policy, 1]
                of_policy = self._admit(
                    policy,
                    tf.gather(ids, mine[:, 0]),
                    tf.gather(counts, mine[:, 0]),
                    tf.gather(threshold, mine[:, 0]),
                    step,
                    period,
                )
                admitted = tf.tensor_scatter_nd_update(admitted, mine, of_policy)
        return admitted

    def clear(self) -> None:
        """Resets all counts."""
        for counts in (self.exact, self.sketch):
            if counts is not None:
                counts.clear()

    def _admit(
        self,
        policy: str,
        ids: Tensor,
        counts: Tensor,
        threshold: Tensor,
        step: Tensor,
        period: Tensor | int,
    ) -> Tensor:
        if policy == "probabilistic":
            return is_drawn(self._key.read_value(), ids, counts, threshold, step)
        if policy == "exact" and self.exact is not None:
            return self.exact.admit(ids, counts, threshold, period)
        if policy == "sketch" and self.sketch is not None:
            return self.sketch.admit(ids, counts, threshold)
        raise ValueError(f"`policy` must be known. Received: policy={policy!r}.")


def draw_key(seed: int) -> int:
    """Returns the key of the random numbers of a seed."""
    return initializers.slice_key(seed, "", "admission")


def is_drawn(
    key: Tensor, ids: Tensor, counts: Tensor, threshold: Tensor, step: Tensor
) -> Tensor:
    """Returns which ids are drawn, with probability `1 / threshold` per occurrence.

    An id's random number depends on key, step and id only.

    Args:
      key: From `draw_key`.
      ids: Distinct ids, `[n]`, int64.
      counts: Occurrences of each id at this step, `[n]`, int64.
      threshold: `[n]`, int64.
      step: The global step, an int64 scalar.

    Returns:
      `[n]`, bool.
    """
    key = tf.bitwise.bitwise_xor(key, tf.cast(step, tf.int64) * _STRIDE)
    drawn = initializers.draw("uniform", {"offset": 0.0, "scale": 1.0}, 1, ids, key)
    miss = 1.0 - 1.0 / tf.cast(threshold, tf.float64)
    chance = 1.0 - miss ** tf.cast(counts, tf.float64)
    return tf.cast(drawn[:, 0], tf.float64) < chance


def make(group: Group, seed: int) -> Admission | None:
    """Returns a shard's admission; None if every id gets a row at once."""
    return Admission(group, seed) if group.counts_occurrences else None
