import json
import math

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.layers import activations

_CLASSES = (
    *("ELU", "Exponential", "Gelu", "HardSigmoid", "LeakyReLU", "Linear", "PReLU"),
    *("ReLU", "Selu", "Sigmoid", "Sigmoid2", "Softmax", "Softplus", "Softsign"),
    *("Swish", "Tanh", "ThresholdedReLU"),
)
_NAMES = [name.lower() for name in _CLASSES]


@tf_keras.utils.register_keras_serializable(package="activations_test")
def squared(x):
    return x * x


@tf_keras.utils.register_keras_serializable(package="activations_test")
class Scale(tf_keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


class ActivationsTest(testing.TestCase):
    @testing.golden_cases(__file__, "activations")
    def test_golden(self, case):
        self.run_golden_case(case, activations.get)

    @parameterized.parameters(*_NAMES)
    def test_every_name_round_trips_in_any_case(self, name):
        activation = activations.get(name.upper())
        self.assertIsInstance(activation, tf_keras.layers.Layer)
        self.assertEqual(activations.canonical_name(activation), name)
        config = activations.serialize(activation)
        self.assertEqual(config["name"], name)
        text = json.dumps(config, sort_keys=True)
        for again in (config, text):
            twin = activations.get(again)
            self.assertIs(type(twin), type(activation))
            self.assertEqual(
                json.dumps(activations.serialize(twin)), json.dumps(config)
            )
        self.assertEqual(json.dumps(config, sort_keys=True), text)

    @parameterized.parameters(
        ("exponential", math.exp),
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("hard_sigmoid", lambda x: min(max(0.2 * x + 0.5, 0), 1)),
        ("leaky_relu", lambda x: x if x > 0 else 0.2 * x),
        ("leakyrelu", lambda x: x if x > 0 else 0.3 * x),
        ("linear", lambda x: x),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("sigmoid2", lambda x: 2 / (1 + math.exp(-x))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("softplus", lambda x: math.log1p(math.exp(x))),
        ("softsign", lambda x: x / (1 + abs(x))),
        ("tanh", math.tanh),
        ("thresholdedrelu", lambda x: x if x > 1 else 0),
    )
    def test_matches_definition(self, name, definition):
        x = np.linspace(-4, 4, 33, dtype=np.float32)
        expected = [definition(float(v)) for v in x]
        self.assertAllClose(activations.get(name)(x[None])[0], expected, atol=1e-6)

    @parameterized.parameters(*_CLASSES)
    def test_classes_are_layers(self, name):
        cls = getattr(layers, name)
        self.assertEqual(activations.canonical_name(activations.get(cls)), name.lower())
        self.assertEqual(cls()(tf.ones([2, 3])).shape, (2, 3))

    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.Sigmoid2(), input_shape=(3, 2), output_shape=(3, 2), num_weights=0
        )

    def test_none_is_none(self):
        self.assertIsNone(activations.get(None))
        self.assertIsNone(activations.serialize(None))

    @parameterized.parameters(
        (tf_keras.activations.hard_sigmoid, "hardsigmoid"),
        (tf_keras.activations.swish, "swish"),
        (tf.nn.relu, "relu"),
        (tf.nn.silu, "swish"),
        (tf.sigmoid, "sigmoid"),
    )
    def test_functions_become_the_layer_of_their_name(self, function, name):
        self.assertEqual(activations.canonical_name(activations.get(function)), name)

    def test_a_layer_is_copied(self):
        slope = tf_keras.layers.PReLU(alpha_initializer="ones", shared_axes=[1])
        copies = [activations.get(slope, name=f"act_{i}") for i in range(2)]
        for i, one in enumerate(copies):
            one.build([None, 3, 2])
            self.assertEqual((one.name, one.alpha.shape), (f"act_{i}", (1, 2)))
        self.assertIsNot(copies[0].alpha, copies[1].alpha)
        config = activations.serialize(copies[0])
        again = activations.get(config)
        self.assertIsInstance(again.alpha_initializer, tf_keras.initializers.Ones)
        self.assertEqual(again.shared_axes, [1])

    def test_parameters_are_kept(self):
        config = activations.serialize(tf_keras.layers.LeakyReLU(0.125))
        self.assertEqual(config, {"name": "leakyrelu", "alpha": 0.125})
        y = activations.get(config)(tf.constant([[-8.0]]))
        self.assertAllClose(y, [[-1.0]])

    def test_other_callables_stay_as_they_are(self):
        self.assertIs(activations.get(squared), squared)
        self.assertIsNone(activations.canonical_name(squared))
        self.assertIs(activations.get("mish"), tf_keras.activations.mish)

    @parameterized.named_parameters(
        ("function", squared, 9.0),
        ("layer", Scale(2.0), 6.0),
        ("keras_function", tf_keras.activations.mish, 2.9865),
    )
    def test_registered_objects_round_trip(self, activation, expected):
        config = json.loads(json.dumps(activations.serialize(activation)))
        self.assertAllClose(
            activations.get(config)(tf.constant([[3.0]])), [[expected]], atol=1e-4
        )

    def test_keras_configs_are_read(self):
        for config in (
            tf_keras.layers.serialize(tf_keras.layers.ELU(0.5)),
            tf_keras.utils.serialize_keras_object(tf_keras.layers.ELU(0.5)),
        ):
            y = activations.get(config)(tf.constant([[-20.0]]))
            self.assertAllClose(y, [[-0.5]])

    def test_rejects(self):
        with self.assertRaisesRegex(ValueError, r"one of elu, .*activation='rleu'\."):
            activations.get("rleu")
        with self.assertRaisesRegex(ValueError, r"activation='os\.getcwd\(\)'\."):
            activations.get("os.getcwd()")
        with self.assertRaisesRegex(ValueError, r"activation='get'\."):
            activations.get("get")
        with self.assertRaisesRegex(
            TypeError, r"a layer or a callable.*activation=3\."
        ):
            activations.get(3)
        with self.assertRaisesRegex(ValueError, r"needs a `name`.*=\{'alpha': 1\}\."):
            activations.get({"alpha": 1})
        with self.assertRaisesRegex(ValueError, "cannot be written to a config"):
            activations.serialize(lambda x: x)
