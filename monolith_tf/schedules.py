"""Learning-rate schedules as data, shared by dense and row optimizers."""

import dataclasses
from typing import Any
from typing import ClassVar
from typing import Literal

from monolith_tf.types import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """A learning rate as a function of the global step.

        warm = min(1, (step + 1) / warmup_steps)           # 1 without warm-up
        p    = min(1, max(0, step - warmup_steps) / decay_steps)
        constant:    lr = learning_rate
        polynomial:  lr = (learning_rate - end) * (1 - p)^power + end
        exponential: lr = learning_rate * decay_rate^(steps past warm-up / decay_steps)
        cosine:      lr = (learning_rate - end) * (1 + cos(pi p)) / 2 + end
        piecewise:   lr = values[number of boundaries <= step]
        rate = warm * lr

    Attributes:
      name: One of the forms above.
      learning_rate: The rate after warm-up, before decay; not used by `piecewise`.
      warmup_steps: Steps over which the rate rises linearly from 0.
      decay_steps: Steps the decay takes, at least 1.
      end_learning_rate: The rate at the end of a polynomial or cosine decay.
      power: Exponent of the polynomial decay.
      decay_rate: Factor by which the exponential decay falls in `decay_steps`.
      boundaries: Increasing steps at which `piecewise` changes.
      values: Rates of `piecewise`, one more than `boundaries`.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: Literal["constant", "polynomial", "exponential", "cosine", "piecewise"] = (
        "constant"
    )
    learning_rate: float = 0.001
    warmup_steps: int = 0
    decay_steps: int = 1
    end_learning_rate: float = 0.0
    power: float = 1.0
    decay_rate: float = 0.5
    boundaries: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.learning_rate < 0 or self.end_learning_rate < 0:
            raise ValueError(
                "`learning_rate` and `end_learning_rate` must not be negative. "
                f"Received: learning_rate={self.learning_rate}, "
                f"end_learning_rate={self.end_learning_rate}."
            )
        if self.warmup_steps < 0 or self.decay_steps < 1:
            raise ValueError(
                "`warmup_steps` must be at least 0 and `decay_steps` at least 1. "
                f"Received: warmup_steps={self.warmup_steps}, "
                f"decay_steps={self.decay_steps}."
            )
        if self.name == "piecewise" and (
            len(self.values) != len(self.boundaries) + 1
            or list(self.boundaries) != sorted(set(self.boundaries))
        ):
            raise ValueError(
                "`boundaries` must increase and `values` must have one entry more. "
                f"Received: boundaries={self.boundaries}, values={self.values}."
            )


def rate_at(spec: ScheduleSpec | float, step: Tensor) -> Tensor:
    """Returns the learning rate at `step` as a float32 scalar tensor.

    Args:
      spec: A schedule, or a constant rate.
      step: The global step, an integer scalar tensor; 0 at the first update.
    """
    import tensorflow as tf

    if not isinstance(spec, ScheduleSpec):
        return tf.constant(spec, tf.float32)
    step = tf.cast(step, tf.float32)
    past = tf.maximum(step - spec.warmup_steps, 0.0)
    progress = tf.minimum(past / spec.decay_steps, 1.0)
    span = spec.learning_rate - spec.end_learning_rate
    if spec.name == "polynomial":
        rate = span * (1.0 - progress) ** spec.power + spec.end_learning_rate
    elif spec.name == "exponential":
        rate = spec.learning_rate * spec.decay_rate ** (past / spec.decay_steps)
    elif spec.name == "cosine":
        rate = span * (1.0 + tf.cos(3.141592653589793 * progress)) / 2.0
        rate += spec.end_learning_rate
    elif spec.name == "piecewise":
        reached = tf.reduce_sum(
            tf.cast(step >= tf.constant(spec.boundaries, tf.float32), tf.int32)
        )
        rate = tf.gather(tf.constant(spec.values, tf.float32), reached)
    else:
        rate = tf.constant(spec.learning_rate, tf.float32)
    if spec.warmup_steps:
        rate *= tf.minimum((step + 1.0) / spec.warmup_steps, 1.0)
    return rate
