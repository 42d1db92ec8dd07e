"""Optimizers of dense variables, built from specs, one per group of variables."""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from monolith_tf import schedules
from monolith_tf.training import spec as spec_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import Tensor


class Schedule(tf_keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate schedule for Keras optimizers, with a factor that may change."""

    def __init__(
        self,
        spec: schedules.ScheduleSpec | float,
        scale: tf.Variable | None = None,
    ) -> None:
        super().__init__()
        self._spec = spec
        self._scale = scale

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the learning rate at `step`."""
        rate = schedules.rate_at(self._spec, step)
        return rate if self._scale is None else self._scale * rate

    def get_config(self) -> JsonDict:
        """Returns the fields of the spec."""
        spec = self._spec
        return (
            vars(spec) if isinstance(spec, schedules.ScheduleSpec) else {"rate": spec}
        )


def build(
    spec: spec_lib.DenseOptimizerSpec, rate_scale: tf.Variable | None = None
) -> tf_keras.optimizers.Optimizer:
    """Returns the `tf_keras` optimizer that `spec` describes.

    Args:
      spec: The optimizer.
      rate_scale: Factor of its learning rate; None is 1.
    """
    rate = spec.learning_rate
    if isinstance(rate, schedules.ScheduleSpec) or rate_scale is not None:
        rate = Schedule(rate, rate_scale)
    optimizers = tf_keras.optimizers
    if spec.name in ("adam", "adamw"):
        arguments = {
            "beta_1": spec.beta_1,
            "beta_2": spec.beta_2,
            "epsilon": spec.epsilon,
        }
        if spec.name == "adam":
            return optimizers.Adam(rate, **arguments)
        return optimizers.AdamW(rate, weight_decay=spec.weight_decay, **arguments)
    if spec.name == "adagrad":
        return optimizers.Adagrad(
            rate,
            initial_accumulator_value=spec.initial_accumulator_value,
            epsilon=spec.epsilon,
        )
    if spec.name == "sgd":
        return optimizers.SGD(rate)
    if spec.name == "momentum":
        return optimizers.SGD(rate, momentum=spec.momentum, nesterov=spec.nesterov)
    if spec.name == "rmsprop":
        return optimizers.RMSprop(rate, rho=spec.rho, epsilon=spec.epsilon)
    if spec.name == "ftrl":
        return optimizers.Ftrl(
            rate,
            initial_accumulator_value=spec.initial_accumulator_value,
            l1_regularization_strength=spec.l1,
            l2_regularization_strength=spec.l2,
        )
    return optimizers.Lion(rate, beta_1=spec.beta_1, beta_2=spec.beta_2)


class DenseUpdate:
    """Applies gradients to variables, each with its own optimizer.

    The attribute `optimizer` of a variable, which layers with an `optimizer` argument
    set, updates it; the default optimizer updates all others.

    Attributes:
      groups: (optimizer, variables) pairs, that of the default optimizer first.
    """

    def __init__(
        self,
        default: tf_keras.optimizers.Optimizer,
        variables: Sequence[tf.Variable],
    ) -> None:
        grouped: dict[int, tuple[tf_keras.optimizers.Optimizer, list[tf.Variable]]] = {
            id(default): (default, [])
        }
        for variable in variables:
            own = getattr(variable, "optimizer", None) or default
            grouped.setdefault(id(own), (own, []))[1].append(variable)
        self.groups = list(grouped.values())
        for optimizer, members in self.groups:
            optimizer.build(members)

    def apply(self, gradients: Sequence[tuple[Tensor | None, tf.Variable]]) -> None:
        """Applies (gradient, variable) pairs; None leaves the variable unchanged."""
        by_variable = {variable.ref(): gradient for gradient, variable in gradients}
        for optimizer, members in self.groups:
            pairs = [
                (by_variable[member.ref()], member)
                for member in members
                if by_variable.get(member.ref()) is not None
            ]
            if pairs:
                _apply(optimizer, pairs)


def _apply(
    optimizer: tf_keras.optimizers.Optimizer, pairs: list[tuple[Tensor, tf.Variable]]
) -> None:
    if tf.distribute.in_cross_replica_context():
        # On a worker. The replica context must be entered here, inside the loop of
        # steps, and not around it.
        strategy = tf.distribute.get_strategy()
        sent = _sent(pairs)
        strategy.run(
            # Aggregating over a single worker would copy the gradients back here.
            lambda: optimizer.apply_gradients(sent, skip_gradients_aggregation=True)
        )
    else:
        # Aggregating would keep the graph and all its captures in a registry.
        optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)


def _sent(
    pairs: list[tuple[Tensor, tf.Variable]],
) -> list[tuple[Tensor, tf.Variable]]:
    """Sends gradients to their variables, in one message per device."""
    alike: dict[tuple[str, tf.DType], list[tuple[Tensor, tf.Variable]]] = {}
    sent = []
    for gradient, variable in pairs:
        if isinstance(gradient, tf.IndexedSlices):
            sent.append((gradient, variable))
        else:
            key = (variable.device, gradient.dtype)
            alike.setdefault(key, []).append((gradient, variable))
    for (device, _), members in alike.items():
        flat = tf.concat([tf.reshape(gradient, [-1]) for gradient, _ in members], 0)
        with tf.device(device):
            sizes = [variable.shape.num_elements() for _, variable in members]
            parts = tf.split(tf.identity(flat), sizes)
            sent += [
                (tf.reshape(part, variable.shape), variable)
                for part, (_, variable) in zip(parts, members, strict=True)
            ]
    return sent
