"""The steps of the standard test."""

import inspect
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.testing import nests
from monolith_tf.types import Nest
from monolith_tf.types import Shapes
from monolith_tf.types import Tensor


class Steps:
    """One layer, its inputs and its outputs."""

    tolerance: dict[str, float]

    def __init__(
        self,
        test: tf.test.TestCase,
        layer: tf_keras.layers.Layer,
        args: tuple[Nest, ...],
        kwargs: dict[str, Nest],
        skip: Mapping[str, str],
    ) -> None:
        self.test = test
        self.layer = layer
        self.nest = tf.nest.map_structure(nests.tensor, (args, kwargs))
        self.skip = skip
        parameters = inspect.signature(layer.call).parameters
        self.has_training = "training" in parameters

    def step(self, name: str, check: Callable[[], None]) -> None:
        """Runs a check, and adds its name to errors."""
        try:
            check()
        except Exception as error:
            error.add_note(f"in step {name!r} of the standard test")
            raise

    def call(
        self, layer: tf_keras.layers.Layer, nest: Nest, training: bool = False
    ) -> Nest:
        """Calls a layer on a nest of positional and keyword arguments."""
        args, kwargs = nest
        if self.has_training:
            kwargs = kwargs | {"training": training}
        return layer(*args, **kwargs)

    def twin(self, **overrides: object) -> tf_keras.layers.Layer:
        """Returns a layer made from the config, with the same weights."""
        config = self.layer.get_config() | overrides
        twin = type(self.layer).from_config(config)
        self.call(twin, self.nest)
        twin.set_weights(self.layer.get_weights())
        return twin

    def start(self, output_shape: Shapes, num_weights: int | None) -> None:
        """Builds the layer and stores its outputs."""
        self.test.assertFalse(self.layer.built, "`layer` must not be built yet")
        self.outputs = self.call(self.layer, self.nest)
        shapes = [tuple(t.shape) for t in tf.nest.flatten(self.outputs)]
        self.test.assertEqual(shapes, nests.flat_shapes(output_shape))
        if num_weights is not None:
            names = [w.name for w in self.layer.weights]
            self.test.assertLen(names, num_weights, names)
        self.assert_finite(self.outputs)
        self._check_starts()

    def _check_starts(self) -> None:
        """Random initial values of two weights of the same shape must differ."""
        values = [w.numpy() for w in self.layer.trainable_weights]
        for a, b in itertools.combinations(values, 2):
            if a.shape == b.shape and a.size > 1 and np.ptp(a) > 0:
                self.test.assertNotAllEqual(a, b)

    def check_config(self) -> None:
        """A twin made from the config computes the same."""
        config = self.layer.get_config()
        text = json.dumps(config, sort_keys=True)
        twin = self.twin()
        self.test.assertEqual(text, json.dumps(config, sort_keys=True))
        self.test.assertEqual(text, json.dumps(twin.get_config(), sort_keys=True))
        self.assert_same(self.call(twin, self.nest), self.outputs)

    def check_graph(self) -> None:
        """One trace works for every batch size, and equals eager mode."""
        specs = tf.nest.map_structure(nests.spec, self.nest)
        call = tf.function(lambda nest: self.call(self.layer, nest), autograph=False)
        graph = call.get_concrete_function(specs)
        self.assert_same(graph(self.nest), self.outputs)
        if "rows" in self.skip:
            return
        for n in (1, 0):
            part = tf.nest.map_structure(lambda t, n=n: t[:n], self.nest)
            expected = tf.nest.map_structure(lambda t, n=n: t[:n], self.outputs)
            self.assert_same(graph(part), expected)
            self.assert_same(self.call(self.layer, part), expected)
        backwards = tf.nest.map_structure(nests.reverse, self.nest)
        expected = tf.nest.map_structure(nests.reverse, self.outputs)
        self.assert_same(graph(backwards), expected)

    def check_gradients(self, zero_gradients: Sequence[str]) -> None:
        """Every weight has a gradient in training."""
        weights = self.layer.trainable_weights
        _, gradients, of_inputs = self.gradients(self.nest, training=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            name = weight.name.split(":")[0]
            self.test.assertIsNotNone(gradient, f"{name} has no gradient")
            self.assert_finite(gradient)
            if not name.endswith(tuple(zero_gradients)):
                self.test.assertNotAllEqual(gradient, np.zeros(gradient.shape), name)
        if "input_gradient" not in self.skip:
            for gradient in of_inputs:
                self.test.assertIsNotNone(gradient, "an input has no gradient")
                self.assert_finite(gradient)

    def gradients(
        self, nest: Nest, training: bool
    ) -> tuple[Nest, list[Tensor], list[Tensor]]:
        """Returns outputs, and gradients of a loss for trainable weights and inputs."""
        floating = [
            t
            for t in tf.nest.flatten(nest, expand_composites=True)
            if nests.floating(t)
        ]
        with tf.GradientTape() as tape:
            tape.watch(floating)
            outputs = self.call(self.layer, nest, training)
            terms = [
                tf.reduce_sum(tf.cast(t, tf.float32) * nests.ramp(t))
                for t in tf.nest.flatten(outputs)
            ]
            loss = tf.add_n(terms + [tf.cast(x, tf.float32) for x in self.layer.losses])
        weights = list(self.layer.trainable_weights)
        found = tape.gradient(loss, weights + floating)
        dense = [None if g is None else tf.convert_to_tensor(g) for g in found]
        return outputs, dense[: len(weights)], dense[len(weights) :]

    def check_jit(self) -> None:
        """XLA compiles the forward and backward pass, with the same results."""
        call = tf.function(
            lambda nest: self.gradients(nest, training=False),
            jit_compile=True,
            autograph=False,
        )
        self.assert_same(call(self.nest), self.gradients(self.nest, training=False))

    def check_float16(self, output_dtype: Nest) -> None:
        """Mixed precision set by the layer's argument."""
        config = self.layer.get_config() | {"dtype": "mixed_float16"}
        self._check_mixed(type(self.layer).from_config(config), output_dtype)

    def check_bfloat16(self, output_dtype: Nest) -> None:
        """Mixed precision set by the global policy."""
        config = self.layer.get_config()
        del config["dtype"]
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            self._check_mixed(type(self.layer).from_config(config), output_dtype)
        finally:
            tf_keras.mixed_precision.set_global_policy("float32")

    def _check_mixed(self, layer: tf_keras.layers.Layer, output_dtype: Nest) -> None:
        """Outputs have the compute type and are finite, variables stay float32."""
        for training in (False, True):
            outputs = self.call(layer, self.nest, training)
            self.assert_finite(outputs)
        expected = tf.as_dtype(output_dtype or layer.compute_dtype)
        for tensor in tf.nest.flatten(outputs):
            self.test.assertEqual(tensor.dtype, expected)
        for weight in layer.weights:
            if isinstance(weight, tf.Variable) and weight.dtype.is_floating:
                self.test.assertEqual(weight.dtype, tf.float32, weight.name)

    def check_empty_training(self) -> None:
        """A training call on an empty batch changes no weight and has finite losses."""
        layer = self.twin()
        before = layer.get_weights()
        self.call(layer, tf.nest.map_structure(lambda t: t[:0], self.nest), True)
        self.assert_finite(layer.losses)
        self.assert_same(layer.get_weights(), before)

    def check_model(self) -> None:
        """The layer trains in a functional model, which can be saved and reloaded."""
        layer = self.twin()
        symbols = tf.nest.map_structure(nests.symbol, self.nest)
        args, kwargs = symbols
        outputs = layer(*args, **kwargs)  # The model passes `training`.
        if "static_shape" not in self.skip:
            for symbol, tensor in zip(
                tf.nest.flatten(outputs), tf.nest.flatten(self.outputs), strict=True
            ):
                self.test.assertEqual(symbol.shape[1:], tensor.shape[1:])
        model = tf_keras.Model(tf.nest.flatten(symbols), outputs)
        inputs = tf.nest.flatten(self.nest)
        labels = [np.zeros(t.shape, "float32") for t in tf.nest.flatten(self.outputs)]
        model.compile("sgd", ["mse"] * len(labels))
        if model.trainable_weights:
            data = tf.data.Dataset.from_tensors((tuple(inputs), tuple(labels)))
            history = model.fit(data, epochs=1, verbose=0).history
            self.assert_finite(history["loss"])
            self.assert_finite(model.get_weights())
        expected = tf.nest.flatten(model(inputs, training=False))
        with tempfile.TemporaryDirectory() as folder:
            if "keras_file" not in self.skip:
                path = os.path.join(folder, "model.keras")
                model.save(path)
                loaded = tf_keras.models.load_model(path, compile=False)
                self.assert_same(
                    tf.nest.flatten(loaded(inputs, training=False)), expected
                )
            if "saved_model" not in self.skip:
                path = os.path.join(folder, "saved_model")
                served = nests.export(model, inputs, path)
                self.assert_same(tf.nest.flatten(served.serve(inputs)), expected)

    def assert_finite(self, nest: Nest) -> None:
        """All numbers of all tensors are finite."""
        for tensor in tf.nest.flatten(nest):
            values = np.asarray(tf.cast(tensor, tf.float64))
            self.test.assertTrue(np.all(np.isfinite(values)), values)

    def assert_same(self, a: Nest, b: Nest) -> None:
        """Two nests have equal shapes and nearly equal values."""
        flat_a, flat_b = tf.nest.flatten(a), tf.nest.flatten(b)
        self.test.assertEqual(len(flat_a), len(flat_b))
        for x, y in zip(flat_a, flat_b, strict=True):
            self.test.assertEqual(x is None, y is None)
            if x is not None:
                self.test.assertAllClose(x, y, **self.tolerance)
