"""The standard test that every layer must pass."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from monolith_tf.testing import nests
from monolith_tf.testing.battery_steps import Steps
from monolith_tf.types import Nest
from monolith_tf.types import Shapes
from monolith_tf.types import Tensor

_STEPS = (
    "config",
    "graph",
    "gradients",
    "jit",
    "mixed_float16",
    "mixed_bfloat16",
    "empty_training",
    "model",
)
_OPTIONS = ("rows", "input_gradient", "static_shape", "saved_model", "keras_file")


def run(
    test: tf.test.TestCase,
    layer: tf_keras.layers.Layer,
    *,
    output_shape: Shapes,
    input_shape: Shapes = None,
    inputs: Nest = None,
    call_kwargs: Mapping[str, Tensor] | None = None,
    num_weights: int | None = None,
    skip: Mapping[str, str] | None = None,
    zero_gradients: Sequence[str] = (),
    output_dtype: Nest = None,
    tolerance: float = 1e-5,
) -> tf_keras.layers.Layer:
    """Runs the standard test on a layer.

    It checks output shapes for the given batch, an unknown batch size, an empty batch
    and one row; that the rows of a batch are independent; that a layer made from the
    config, graph mode and XLA give the same results, including gradients; that every
    trainable weight has a finite gradient that is not all zero; that weights of the
    same shape start with different values; mixed precision by argument and by global
    policy; a training step on an empty batch; `Model.fit`; and reloading from a
    `.keras` file and a SavedModel.

    Args:
      test: A `testing.TestCase`.
      layer: A layer that has not been built. The test calls it and copies of it.
      output_shape: Shape, or nest of shapes, of the output for these inputs.
      input_shape: Shape or nest of shapes, batch first; the inputs are then drawn from
        a normal distribution. A tuple of shapes means positional arguments.
      inputs: Arrays or ragged tensors instead of `input_shape`.
      call_kwargs: Arrays to pass by keyword, such as a mask.
      num_weights: Number of weights, including those that are not trainable.
      skip: Step -> why it does not apply: "config", "graph", "gradients", "jit",
        "mixed_float16", "mixed_bfloat16", "empty_training", "model"; or a part of a
        step: "rows" (rows are not independent), "input_gradient", "static_shape",
        "saved_model", "keras_file".
      zero_gradients: Suffixes of the names of weights whose gradient may be all zero.
      output_dtype: Output type under mixed precision, if not the compute type.
      tolerance: Relative and absolute tolerance of the comparisons in float32.

    Returns:
      The layer, built.
    """
    for name in skip or {}:
        if name not in _STEPS + _OPTIONS:
            raise ValueError(
                f"`skip` must name steps of {_STEPS + _OPTIONS}. Received: {name!r}."
            )
    if (input_shape is None) == (inputs is None):
        raise ValueError("Give either `input_shape` or `inputs`.")
    if inputs is None:
        inputs = nests.map_shapes(
            lambda shape: test.rng.normal(size=shape).astype("float32"), input_shape
        )
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    steps = Steps(test, layer, args, dict(call_kwargs or {}), skip or {})
    steps.tolerance = {"rtol": tolerance, "atol": tolerance}
    steps.start(output_shape, num_weights)
    checks: dict[str, Callable[[], None]] = {
        "config": steps.check_config,
        "graph": steps.check_graph,
        "gradients": lambda: steps.check_gradients(zero_gradients),
        "jit": steps.check_jit,
        "mixed_float16": lambda: steps.check_float16(output_dtype),
        "mixed_bfloat16": lambda: steps.check_bfloat16(output_dtype),
        "empty_training": steps.check_empty_training,
        "model": steps.check_model,
    }
    for name in _STEPS:
        if name not in steps.skip:
            steps.step(name, checks[name])
    return layer
