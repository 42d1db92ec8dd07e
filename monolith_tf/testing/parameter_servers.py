"""Trains one layer under a parameter server strategy."""

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.testing import nests
from monolith_tf.testing.battery_steps import Steps
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


def run(
    test: tf.test.TestCase,
    layer: tf_keras.layers.Layer,
    coordinator: tf.distribute.coordinator.ClusterCoordinator,
    *,
    input_shape: Shapes = None,
    inputs: Nest = None,
    num_steps: int = 2,
) -> tf_keras.layers.Layer:
    """Checks that a layer trains with its variables on parameter servers.

    Args:
      test: A `testing.TestCase`.
      layer: A layer; the test makes a copy under the strategy.
      coordinator: A `tf.distribute.coordinator.ClusterCoordinator`.
      input_shape: As for `battery.run`.
      inputs: As for `battery.run`.
      num_steps: Number of steps of gradient descent, each scheduled on a worker.

    Returns:
      The copy.
    """
    if inputs is None:
        inputs = nests.map_shapes(
            lambda shape: test.rng.normal(size=shape).astype("float32"), input_shape
        )
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    with coordinator.strategy.scope():
        copy = type(layer).from_config(layer.get_config())
        steps = Steps(test, copy, args, {}, {})
        steps.call(copy, steps.nest)
        optimizer = tf_keras.optimizers.SGD(0.1)
        optimizer.build(copy.trainable_variables)
    before = [np.array(w) for w in copy.get_weights()]

    @tf.function
    def step() -> None:
        coordinator.strategy.run(replica_step)

    def replica_step() -> None:
        variables = copy.trainable_variables
        _, gradients, _ = steps.gradients(steps.nest, training=True)
        if variables:
            optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for _ in range(num_steps):
        coordinator.schedule(step)
    coordinator.join()
    after = copy.get_weights()
    steps.assert_finite(after)
    for weight in copy.weights:
        test.assertIn("/job:ps/", weight.device, weight.name)
    if copy.trainable_weights:
        same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        test.assertFalse(all(same), "no weight was trained")
    return copy
