"""A side of the benchmark `layers`: makes, checks and times a library's layers."""

import importlib

import numpy as np
import tensorflow as tf
from layer_sides import sizes as sizes_lib
from sides import worker


class Side:
    """The layers of one library, one at a time."""

    def __init__(self, module: str) -> None:
        self._cases = importlib.import_module(f"layer_sides.{module}").CASES

    def cases(self) -> dict:
        """Returns the layers, with their remarks."""
        return {
            name: {"same": case.same, "remark": case.remark}
            for name, case in self._cases.items()
        }

    def make(self, name: str, sizes: dict, give: str = "", take: str = "") -> None:
        """Creates a layer and the functions to time.

        Args:
          name: The case's name.
          sizes: The fields of `Sizes`.
          give: File to write its weights, outputs and gradients to, or none.
          take: File to load weights from, or none.
        """
        case, sizes = self._cases[name], sizes_lib.Sizes(**sizes)
        if callable(case.inputs):
            arrays = case.inputs(sizes)
        else:
            arrays = sizes_lib.make(case.inputs, sizes)
        inputs = tf.nest.map_structure(tf.constant, case.adapt(arrays))
        layer = case.make(sizes)
        forward, backward = _functions(case, layer)
        outputs = tf.nest.flatten(forward(inputs))
        if take and case.load is not None:
            case.load(layer, _numbered(np.load(take), "weight"))
            outputs = tf.nest.flatten(forward(inputs))
        rng = np.random.default_rng(1)
        # The same random numbers for the outputs of both sides, whatever their shapes.
        row = rng.normal(size=sum(int(tf.size(y)) for y in outputs))
        parts = np.split(row, np.cumsum([int(tf.size(y)) for y in outputs])[:-1])
        upstream = [
            tf.constant(part.reshape(y.shape), y.dtype)
            for part, y in zip(parts, outputs, strict=True)
        ]
        if give:
            weights = [weight.numpy() for weight in layer.weights]
            _, of_inputs, _ = backward(inputs, upstream)
            np.savez(
                give,
                **{f"weight{i:03}": weight for i, weight in enumerate(weights)},
                outputs=_flat(outputs),
                gradients=_flat(of_inputs),
            )
        self._calls = {
            "forward": lambda: forward(inputs),
            "backward": lambda: backward(inputs, upstream),
        }
        for call in self._calls.values():
            call()

    def time(self, which: str, calls: int) -> tuple[float, float]:
        """Returns the seconds of a call: wall time, and CPU time of all cores.

        Args:
          which: "forward" or "backward", which is forward and backward.
          calls: Number of calls to time.
        """
        return worker.seconds(self._calls[which], calls)


def _functions(case, layer):
    @tf.function(autograph=False)
    def forward(inputs):
        return case.call(layer, inputs, False)

    @tf.function(autograph=False)
    def backward(inputs, upstream):
        flat = [x for x in tf.nest.flatten(inputs) if x.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(flat)
            outputs = tf.nest.flatten(case.call(layer, inputs, True))
        # A Keras 3 variable wraps a TensorFlow one.
        weights = [
            weight if isinstance(weight, tf.Variable) else weight.value
            for weight in layer.trainable_weights
        ]
        found = tape.gradient(outputs, [flat, weights], output_gradients=upstream)
        return outputs, *found

    return forward, backward


def _flat(tensors) -> np.ndarray:
    return np.concatenate([tensor.numpy().ravel() for tensor in tensors])


def _numbered(held, prefix: str) -> list[np.ndarray]:
    return [held[key] for key in sorted(held) if key.startswith(prefix)]
