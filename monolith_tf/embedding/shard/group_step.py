"""What a step does with a group: each shard gets its part, on its device."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf.embedding.lookup import expansion
from monolith_tf.embedding.lookup import routing
from monolith_tf.embedding.lookup.distinct import Distinct
from monolith_tf.embedding.lookup.pulled import PulledShard
from monolith_tf.embedding.shard.clock import Clock
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.shard.step import ShardStep
from monolith_tf.types import Tensor


class GroupStep:
    """Pulls rows from the shards of a group, and pushes gradients to them.

    Calls one function per shard, on the shard's device: inlined in the caller's graph,
    each of its branches would send messages between the machines.

    Args:
      shards: The group's shards.
      is_exact: Whether updates hold the lock of their shard.
      is_local: Whether the shards are on the machine that runs the step.
    """

    def __init__(
        self, shards: Sequence[Shard], *, is_exact: bool, is_local: bool
    ) -> None:
        self.group = shards[0].group
        self._is_local = is_local
        self._of_shards = [ShardStep(shard, is_exact=is_exact) for shard in shards]

    def read(self, batch: Distinct) -> Tensor:
        """Returns the weights of distinct ids, `[unique, dim]`; zeros without a row."""
        parts = routing.partition(batch, len(self._of_shards))
        rows = []
        for of_shard, part in zip(self._of_shards, parts, strict=True):
            with tf.device(of_shard.shard.device):
                weights = of_shard.packed.call("read", part.ids, writes=False)
            rows.append(self._of_width(weights))
        return _stitched(parts, rows)

    def pull(
        self, batch: Distinct, clock: Clock
    ) -> tuple[Tensor, tuple[PulledShard, ...]]:
        """As `read`, but inserts rows; returns the result of each shard too."""
        parts = routing.partition(batch, len(self._of_shards))
        found, rows = [], []
        for of_shard, part in zip(self._of_shards, parts, strict=True):
            asked = part._replace(places=())
            with tf.device(of_shard.shard.device):
                result = of_shard.packed.call("lookup", asked, clock)
            weights = self._of_width(result.weights)
            rows.append(weights)
            # Keep the weights for the update only if they stay on this machine.
            is_kept = self._is_local and of_shard.reuses_weights
            result = result._replace(weights=weights if is_kept else ())
            found.append(part._replace(**result._asdict()))
        return _stitched(parts, rows), tuple(found)

    def push(
        self,
        rows: Tensor,
        found: Sequence[PulledShard],
        gradient: Any,
        clock: Clock,
        rate_scale: Tensor | tuple[()],
    ) -> None:
        """Updates rows.

        Args:
          rows: What `pull` returned.
          found: What it returned of each shard.
          gradient: The gradient of `rows`, dense or `tf.IndexedSlices`.
          clock: The current step, and the time of the pull.
          rate_scale: Factor for all learning rates; `()` means 1.
        """
        gradient = _checked(self.group.name, gradient, rows)
        for of_shard, part in zip(self._of_shards, found, strict=True):
            # A shard takes only the gradients of its own ids. Gathering them here
            # sends no other shard's gradients to its machine.
            mine = gradient
            if not isinstance(part.places, tuple):
                mine = tf.gather(gradient, part.places)
            part = part._replace(places=())
            with tf.device(of_shard.shard.device):
                of_shard.packed.call("push", part, mine, clock, rate_scale)

    def _of_width(self, weights: Tensor) -> Tensor:
        # All groups share one trace, so its output has no static width.
        return tf.ensure_shape(weights, [None, self.group.dim])


def _stitched(parts: Sequence[PulledShard], rows: Sequence[Tensor]) -> Tensor:
    """Returns the rows of all shards in the order of the batch's distinct ids."""
    if len(rows) == 1:
        return rows[0]
    # `places` are the positions of a shard's ids. In the batch's order, inverses and
    # gradients use the same positions for any number of shards.
    return tf.dynamic_stitch([part.places for part in parts], rows)


def _checked(name: str, gradient: Any, rows: Tensor) -> Tensor:
    """Returns the gradient as a dense tensor; fails unless it has the rows' shape."""
    if not isinstance(gradient, tf.IndexedSlices):
        return _of_shape(name, gradient, rows.shape, tf.shape(rows))
    places, num_rows = gradient.indices, tf.shape(rows)[0]
    shape = tf.stack([tf.size(places), rows.shape[1]])
    values = _of_shape(name, gradient.values, [None, rows.shape[1]], shape)
    message = f"The gradient of {name!r} must have indices of rows pulled, which are"
    first, last = tf.reduce_min(places), tf.reduce_max(places)
    check = tf.raw_ops.Assert(
        condition=(first >= 0) & (last < tf.cast(num_rows, places.dtype)),
        data=[
            message,
            num_rows,
            "in number. Received: indices from",
            first,
            "to",
            last,
        ],
    )
    with tf.control_dependencies([check]):
        places = tf.cast(places, tf.int32)
    return expansion.sum_by_row(values, places, num_rows)


def _of_shape(name: str, gradient: Any, static: Any, shape: Tensor) -> Tensor:
    """Returns the gradient; fails unless it has a shape, partly known as `static`."""
    gradient = tf.convert_to_tensor(gradient)
    if not gradient.shape.is_compatible_with(static):
        raise ValueError(
            f"The gradient of {name!r} must have the shape of its rows, "
            f"{tf.TensorShape(static)}. Received: shape={gradient.shape}."
        )
    given = tf.shape(gradient)
    is_equal = tf.reduce_all(tf.equal(given[:2], shape)) & tf.equal(tf.size(given), 2)
    message = f"The gradient of {name!r} must have a row for each row pulled. Received:"
    check = tf.raw_ops.Assert(condition=is_equal, data=[message, given, shape])
    with tf.control_dependencies([check]):
        gradient = tf.identity(gradient)
    gradient.set_shape(static)
    return gradient
