"""Random draws that depend on seed, step and layer only.

A training step runs inside `step_scope(seed, step)`. Within it, every draw is
stateless: it depends only on the seed, the step, the position of the layer in the order
of first draws in the step, and the number of earlier draws of that layer. So a resumed
job draws the same numbers as an uninterrupted one. Outside a scope, under plain
`Model.fit` for example, draws come from TensorFlow's own generators.
"""

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

from monolith_tf.types import Shape

_local = threading.local()


class _Scope:
    """One step's seed, and how often each of its layers has drawn."""

    def __init__(self, seed: int, step: tf.Tensor) -> None:
        self._seed = seed
        self._step = tf.cast(step, tf.int64)
        self._draws: dict[int, list[int]] = {}

    def next_seed(self, owner: object) -> tf.Tensor:
        place = self._draws.setdefault(id(owner), [len(self._draws), 0])
        key = (self._seed * 1_000_003 + place[0]) * 1_000_003 + place[1]
        place[1] += 1
        key &= 0x7FFF_FFFF_FFFF_FFFF
        return tf.stack([tf.constant(key, tf.int64), self._step])  # [2]


@contextlib.contextmanager
def step_scope(seed: int, step: tf.Tensor) -> Iterator[None]:
    """Makes the draws of layers called inside depend only on seed and step.

    Args:
      seed: The job's seed, not negative.
      step: The global step, an integer scalar.
    """
    before = getattr(_local, "scope", None)
    _local.scope = _Scope(seed, step)
    try:
        yield
    finally:
        _local.scope = before


def uniform(
    owner: object, shape: Shape, dtype: tf.DType = tf.float32, seed: int | None = None
) -> tf.Tensor:
    """Draws from [0, 1) for the layer `owner`.

    Args:
      owner: The layer that draws.
      shape: The shape of the draw; may be a tensor.
      dtype: A floating type.
      seed: Operation seed of a draw outside a step scope.
    """
    scope = getattr(_local, "scope", None)
    if scope is None:
        return tf.random.uniform(shape, dtype=dtype, seed=seed)
    return tf.random.stateless_uniform(shape, scope.next_seed(owner), dtype=dtype)


def coarse_uniform(owner: object, shape: Shape, seed: int | None = None) -> tf.Tensor:
    """Draws multiples of 2^-16 from [0, 1), in half the time of `uniform`.

    For masks, whose rates need no finer steps. Outside a step scope, draws are those of
    `uniform`.

    Args:
      owner: The layer that draws.
      shape: The shape of the draw; may be a tensor.
      seed: Operation seed of a draw outside a step scope.
    """
    scope = getattr(_local, "scope", None)
    if scope is None:
        return tf.random.uniform(shape, seed=seed)
    size = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform(
        [(size + 3) // 4],
        scope.next_seed(owner),
        minval=None,
        maxval=None,
        dtype=tf.uint64,
    )
    draws = tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:size]
    return tf.reshape(tf.cast(draws, tf.float32) * 2.0**-16, shape)


def normal(
    owner: object, shape: Shape, dtype: tf.DType = tf.float32, seed: int | None = None
) -> tf.Tensor:
    """Draws standard normal numbers for the layer `owner`; arguments as `uniform`."""
    scope = getattr(_local, "scope", None)
    if scope is None:
        return tf.random.normal(shape, dtype=dtype, seed=seed)
    return tf.random.stateless_normal(shape, scope.next_seed(owner), dtype=dtype)
