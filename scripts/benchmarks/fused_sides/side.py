"""A side of the benchmark `fused`: CIN and SeNet, computed in one way."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf
from fused_sides.case import Case
from sides import worker


def plain_cin(case: Case, x0, weights):
    layers = len(case.units)
    first = x = tf.transpose(x0, [0, 2, 1])
    pooled = []
    for i, (kernel, bias) in enumerate(
        zip(weights[:layers], weights[layers:], strict=True)
    ):
        products = x[..., tf.newaxis] * first[..., tf.newaxis, :]
        y = tf.reshape(products, [-1, kernel.shape[0]]) @ kernel + bias
        x = tf.reshape(y, [-1, case.dim, case.units[i]])
        if i < layers - 1 and case.activation:
            x = getattr(tf.nn, case.activation)(x)
        pooled.append(tf.reduce_sum(x, axis=1))
    return tf.concat(pooled, axis=-1)


def plain_senet(case: Case, x, weights):
    w1, b1, w2, b2 = weights
    hidden = tf.nn.relu(tf.reduce_mean(x, axis=-1) @ w1 + b1)
    return x * tf.sigmoid(hidden @ w2 + b2)[..., tf.newaxis]


def fused(case: Case, x, weights):
    from monolith_tf.layers import functional

    if case.operation == "senet":
        return functional.senet(x, *weights, fused=True)
    layers = len(case.units)
    activation = getattr(tf.nn, case.activation) if case.activation else None
    activations = [activation] * (layers - 1)
    kernels, biases = weights[:layers], weights[layers:]
    return functional.cin(x, kernels, biases, activations, fused=True)


def deepctr(case: Case, x, weights, made={}):  # noqa: B006
    """Calls a layer made once; its SENET has ReLU gates, lists and no biases."""
    from deepctr.layers import interaction

    if case.operation == "senet":
        if case not in made:
            made[case] = interaction.SENETLayer(3)
            made[case].build([tf.TensorShape([None, 1, case.dim])] * case.fields)
        layer, inputs = made[case], tf.split(x, case.fields, axis=1)
        layer.W_1, layer.W_2 = weights[0], weights[2]
        layer.tensordot = lambda pair: tf.tensordot(*pair, axes=(-1, 0))
        return tf.concat(layer(inputs), axis=1)
    layers = len(case.units)
    if case not in made:
        made[case] = interaction.CIN(
            case.units, case.activation or "linear", split_half=False, l2_reg=0
        )
        made[case].build(tf.TensorShape([None, case.fields, case.dim]))
        made[case].activation_layers[-1] = tf.identity
    layer = made[case]
    layer.filters, layer.bias = [], weights[layers:]
    for kernel in weights[:layers]:  # fields come before maps there
        cube = tf.reshape(kernel, [-1, case.fields, kernel.shape[1]])
        flat = tf.reshape(tf.transpose(cube, [1, 0, 2]), [1, *kernel.shape])
        layer.filters.append(flat)
    return layer.call(x)


def prepare(side: str, case: Case):
    """Returns inputs, and by name the functions to be measured."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        scale = shape[0] ** -0.5 if len(shape) == 2 else 1.0
        return tf.constant((rng.normal(size=shape) * scale).astype("float32"))

    x = draw(case.batch, case.fields, case.dim)
    weights = [draw(*shape) for shape in case.shapes]
    plain = plain_senet if case.operation == "senet" else plain_cin
    function = {"fused": fused, "deepctr": deepctr}.get(side, plain)

    @functools.partial(tf.function, autograph=False, jit_compile=side == "plain_xla")
    def forward(x, weights):
        return function(case, x, weights)

    @functools.partial(tf.function, autograph=False, jit_compile=side == "plain_xla")
    def training(x, weights, upstream):
        used = [x, *weights]
        with tf.GradientTape() as tape:
            tape.watch(used)
            y = function(case, x, weights)
        gradients = tape.gradient(y, used, output_gradients=upstream)
        return y, [g for g in gradients if g is not None]

    upstream = draw(*case.output_shape)
    return {
        "forward": lambda: forward(x, weights),
        "training": lambda: training(x, weights, upstream),
    }


class Side:
    """One way to compute a case after another."""

    def __init__(self, name: str) -> None:
        self._name = name

    def make(self, case: dict) -> list[float]:
        """Makes the functions of a case; returns norms of output and gradient."""
        self._calls = prepare(self._name, Case.from_json(case))
        y, gradients = self._calls["training"]()
        return [float(tf.norm(t)) for t in (y, gradients[0])]

    def time(self, which: str, calls: int) -> tuple[float, float]:
        """Returns the seconds a call takes, on the clock and of all processors."""
        return worker.seconds(lambda: _finish(self._calls[which]()), calls)

    def peak(self, case: dict) -> float | None:
        """Returns the MiB that a step needs, of a process that has made none before.

        TensorFlow keeps what it has freed, so only a first step says what it needs. One
        of a small batch before it loads the libraries; that it is compiled counts.
        """
        whole = Case.from_json(case)
        _finish(prepare(self._name, dataclasses.replace(whole, batch=64))["training"]())
        training = prepare(self._name, whole)["training"]
        return worker.peak_mib(lambda: _finish(training()))


def _finish(results) -> None:
    """Waits for results."""
    tf.nest.flatten(results)[-1].numpy()
