"""The side of the benchmark `fused`: CIN and SeNet, computed in several ways."""

import ctypes
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


def layer(case: Case, x, weights, fused=True):
    from monolith_tf.layers import functional

    if case.operation == "senet":
        return functional.senet(x, *weights, fused=fused)
    layers = len(case.units)
    activation = getattr(tf.nn, case.activation) if case.activation else None
    activations = [activation] * (layers - 1)
    kernels, biases = weights[:layers], weights[layers:]
    return functional.cin(x, kernels, biases, activations, fused=fused)


def deepctr(case: Case, x, weights, made={}):  # noqa: B006
    """Calls a cached layer; its SENET has ReLU gates, lists and no biases."""
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


def draw(case: Case) -> tuple:
    """Returns an input, weights and a gradient of the output."""
    rng = np.random.default_rng(0)

    def one(*shape):
        scale = shape[0] ** -0.5 if len(shape) == 2 else 1.0
        return tf.constant((rng.normal(size=shape) * scale).astype("float32"))

    x = one(case.batch, case.fields, case.dim)
    weights = [one(*shape) for shape in case.shapes]
    return x, weights, one(*case.output_shape)


def functions(side: str, case: Case, jit_compile: bool) -> tuple:
    """Returns the functions to measure: forward, and with all gradients."""
    plain = plain_senet if case.operation == "senet" else plain_cin
    unfused = functools.partial(layer, fused=False)
    others = {"fused": layer, "unfused": unfused, "deepctr": deepctr}
    function = others.get(side.removesuffix("_xla"), plain)

    def forward(x, weights):
        return function(case, x, weights)

    def training(x, weights, upstream):
        used = [x, *weights]
        with tf.GradientTape() as tape:
            tape.watch(used)
            y = function(case, x, weights)
        gradients = tape.gradient(y, used, output_gradients=upstream)
        return y, [g for g in gradients if g is not None]

    made = functools.partial(tf.function, autograph=False, jit_compile=jit_compile)
    return made(forward), made(training)


def prepare(side: str, case: Case):
    """Returns name -> call to measure."""
    x, weights, upstream = draw(case)
    forward, training = functions(side, case, jit_compile=side.endswith("_xla"))
    return {
        "forward": lambda: forward(x, weights),
        "training": lambda: training(x, weights, upstream),
    }


class Side:
    """Ways to compute a case."""

    def __init__(self) -> None:
        self._calls: dict[str, dict] = {}

    def make(self, way: str, case: dict) -> tuple[list[float], float | None]:
        """Makes the functions of a case.

        Returns:
          Norms of output and gradient, and the MiB that the first training step needs,
          including compilation. Earlier steps of a small batch load the libraries,
          including XLA.
        """
        whole = Case.from_json(case)
        for each in (way, "plain_xla"):
            small = prepare(each, dataclasses.replace(whole, batch=64))
            _finish(small["training"]())
        self._calls[way] = prepare(way, whole)
        _give_back()
        peak = worker.peak_mib(lambda: _finish(self._calls[way]["training"]()))
        y, gradients = self._calls[way]["training"]()
        return [float(tf.norm(t)) for t in (y, gradients[0])], peak

    def time(self, way: str, which: str, calls: int) -> tuple[float, float]:
        """Returns the seconds of a call: wall time, and CPU time of all cores."""
        return worker.seconds(lambda: _finish(self._calls[way][which]()), calls)


def _give_back() -> None:
    """Returns freed memory to the system, so a step has to request it again."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)


def _finish(results) -> None:
    """Waits for results."""
    tf.nest.flatten(results)[-1].numpy()
