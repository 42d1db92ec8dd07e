"""Runs a layer against a golden case."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.testing.golden import GoldenCase
from monolith_tf.testing.golden import compare
from monolith_tf.types import Nest
from monolith_tf.types import Shape

_BFLOAT16_TOLERANCE = 2e-2
_DRAWS = {"uniform": "_uniform", "standard_normal": "_normal", "gumbel": "_gumbel"}
_KNOWN = {
    *("name", "note", "config", "call", "inputs", "weights", "expected"),
    *("expected_structure", "losses", "state_after", "upstream_gradient", "gradients"),
    *("layer_class", *_DRAWS),
}


def run(
    test: tf.test.TestCase,
    case: GoldenCase,
    make: Callable[..., tf_keras.layers.Layer],
    *,
    blocks: Mapping[str, Callable[..., Nest]] | None = None,
    state: Mapping[str, Callable[[tf_keras.layers.Layer], Nest]] | None = None,
    repeat: bool = True,
    bfloat16: bool = True,
) -> tf_keras.layers.Layer:
    """Compares a layer with a golden case, and records the case as passed.

    Compares outputs in a plain call, after a round trip through the config, in a
    `tf.function`, with the batch repeated three times, and under mixed_bfloat16.
    Compares the losses, the state after the call and the gradients once.

    Args:
      test: A `testing.TestCase`.
      case: The case.
      make: The layer's class, or a function from constructor arguments to a layer.
      blocks: For each other block of the case, such as "gates", a function of the layer
        and the call's arguments that computes it.
      state: For each entry of `state_after` that is not a weight, a function of the
        layer that returns it.
      repeat: Set to False if repeating the batch changes the values.
      bfloat16: Set to False if rounding selects between alternatives.

    Returns:
      The layer.
    """
    layer = make(**case.config)
    run_ = _Run(test, case)
    outputs = run_.call(layer)
    run_.compare(outputs)
    run_.check_losses(layer)
    for name, value in case.data.get("state_after", {}).items():
        read = (state or {}).get(name)
        found = read(layer) if read else _find(layer, name)
        test.assertAllClose(found, value, **case.tolerance, msg=name)
    run_.check_gradients(layer)
    for name in sorted(set(case.data) - _KNOWN):
        test.assertIn(name, blocks or {}, "pass `blocks` for this block of the case")
        args, _ = case.inputs()
        run_.reset(layer)
        found = (blocks or {})[name](layer, *args)
        compare(test, found, case.data[name], case.tolerance)
    if hasattr(layer, "get_config"):
        twin = type(layer).from_config(layer.get_config())
        run_.compare(run_.call(twin))
    function = tf.function(lambda: run_.call_built(layer), autograph=False)
    run_.reset(layer)
    run_.compare(function())
    if repeat:
        run_.compare(run_.call(layer, times=3), times=3)
    if bfloat16 and hasattr(layer, "get_config"):
        config = layer.get_config() | {"dtype": "mixed_bfloat16"}
        run_.compare(run_.call(type(layer).from_config(config)), bfloat16=True)
    test.golden_passed.append(f"{case.file}/{case.name}")
    return layer


class _Run:
    """One case, with the state to run it repeatedly."""

    def __init__(self, test: tf.test.TestCase, case: GoldenCase) -> None:
        self.test = test
        self.case = case
        self.start: dict[int, Nest] = {}
        self.as_list = case.data.get("expected_structure") == "list"

    def call(self, layer: tf_keras.layers.Layer, times: int = 1) -> Nest:
        """Builds the layer, sets weights and draws, and calls it."""
        if not layer.built:
            args, kwargs = self.case.inputs(times)
            quiet = {"training": False} if "training" in kwargs else {}
            self._inject(layer, times)
            layer(*args, **kwargs | quiet)
            self.start[id(layer)] = layer.get_weights()
        self.reset(layer, times)
        return self.call_built(layer, times)

    def call_built(self, layer: tf_keras.layers.Layer, times: int = 1) -> Nest:
        """Calls a layer that `reset` prepared."""
        args, kwargs = self.case.inputs(times)
        return layer(*args, **kwargs)

    def reset(self, layer: tf_keras.layers.Layer, times: int = 1) -> None:
        """Sets the weights and draws of the case; resets all other weights."""
        layer.set_weights(self.start[id(layer)])
        for weight in self.case.data.get("weights", []):
            variable = _find(layer, weight["name"])
            self.test.assertEqual(variable.shape.as_list(), weight["shape"])
            variable.assign(np.reshape(weight["value"], weight["shape"]))
        self._inject(layer, times)

    def _inject(self, layer: tf_keras.layers.Layer, times: int) -> None:
        """Replaces the layer's draws with those of the case, in order."""
        for key, method in _DRAWS.items():
            if key in self.case.data:
                setattr(layer, method, _given(self.test, self.case.data[key], times))

    def compare(self, found: Nest, times: int = 1, bfloat16: bool = False) -> None:
        """Compares an output with the expected one."""
        expected = self.case.data["expected"]
        self.test.assertEqual(isinstance(found, list), self.as_list)
        found = list(found) if self.as_list else [found]
        expected = expected if self.as_list else [expected]
        self.test.assertEqual(len(found), len(expected))
        for one, value in zip(found, expected, strict=True):
            repeated = np.concatenate([np.asarray(value)] * times)
            tolerance = dict(self.case.tolerance)
            if bfloat16:
                largest = np.abs(repeated).max(initial=1.0)
                tolerance = {
                    "rtol": _BFLOAT16_TOLERANCE,
                    "atol": _BFLOAT16_TOLERANCE * float(largest),
                }
            self.test.assertAllClose(tf.cast(one, tf.float32), repeated, **tolerance)

    def check_losses(self, layer: tf_keras.layers.Layer) -> None:
        """Compares the layer's losses with those of the case, in any order."""
        if "losses" not in self.case.data:
            return
        for loss in layer.losses:
            self.test.assertEqual(loss.shape.rank, 0)
        self.test.assertAllClose(
            sorted(float(loss) for loss in layer.losses),
            sorted(self.case.data["losses"]),
            **self.case.tolerance,
        )

    def check_gradients(self, layer: tf_keras.layers.Layer) -> None:
        """Compares gradients of sum(output * upstream) for weights and inputs."""
        if "gradients" not in self.case.data:
            return
        self.reset(layer)
        args, kwargs = self.case.inputs()
        upstream = tf.constant(self.case.data["upstream_gradient"], tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(args)
            total = tf.reduce_sum(layer(*args, **kwargs) * upstream)
        expected = self.case.data["gradients"]
        sources = {
            name: args[0] if name == "inputs" else _find(layer, name)
            for name in expected
        }
        for name, gradient in tape.gradient(total, sources).items():
            self.test.assertAllClose(
                tf.convert_to_tensor(gradient),
                np.reshape(expected[name], gradient.shape),
                **self.case.tolerance,
                msg=name,
            )


def _find(layer: tf_keras.layers.Layer, name: str) -> Any:
    """Returns the weight whose path ends in `name`; prefers the shortest path."""
    paths = [(w.name.split(":")[0], w) for w in layer.weights]
    found = [(p, w) for p, w in paths if p == name or p.endswith("/" + name)]
    found.sort(key=lambda pair: pair[0].count("/"))
    if not found:
        raise KeyError(f"no weight `{name}` among {[p for p, _ in paths]}.")
    if len(found) > 1 and found[0][0].count("/") == found[1][0].count("/"):
        raise KeyError(f"more than one weight `{name}`: {[p for p, _ in found]}.")
    return found[0][1]


def _given(
    test: tf.test.TestCase, values: Nest, times: int
) -> Callable[[Shape], tf.Tensor]:
    """Returns a draw function that returns given values: one array, or one per call."""
    several = list(values.values()) if isinstance(values, Mapping) else [values]
    calls = iter(range(10**9))

    def draw(shape: Shape) -> tf.Tensor:
        value = np.asarray(several[next(calls) % len(several)], np.float32)
        wanted = [int(n) for n in np.asarray(tf.get_static_value(tf.stack(shape)))]
        if times > 1 and wanted[0] == times * value.shape[0]:
            value = np.concatenate([value] * times)
        test.assertEqual(value.size, np.prod(wanted), f"draw of shape {wanted}")
        return tf.constant(value.reshape(wanted))

    return draw
