"""The standard test must find what it is there to find."""

import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import testing


class _Good(tf_keras.layers.Layer):
    """Scales its input; every class below breaks one thing of it."""

    def __init__(self, power=1.0, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def build(self, input_shape):
        shape = [input_shape[-1]]
        self.scale = self.add_weight("scale", shape, initializer="ones")
        super().build(input_shape)

    def call(self, inputs, training=None):
        return tf.abs(inputs) ** self.power * self.scale

    def get_config(self):
        return super().get_config() | {"power": self.power}


@tf_keras.utils.register_keras_serializable(package="battery_test")
class _Works(_Good):
    pass


class _ForgetsAnArgument(_Good):
    def get_config(self):
        return super().get_config() | {"power": 1.0}


class _MixesRows(_Good):
    def call(self, inputs, training=None):
        return super().call(inputs) - tf.reduce_mean(inputs)


class _KeepsTheBatchSize(_Good):
    def build(self, input_shape):
        self.batch = input_shape[0]
        super().build(input_shape)

    def call(self, inputs, training=None):
        return tf.reshape(super().call(inputs), [self.batch, inputs.shape[-1]])


class _HasNoGradient(_Good):
    def call(self, inputs, training=None):
        return inputs * tf.stop_gradient(self.scale)


class _HasAZeroGradient(_Good):
    def call(self, inputs, training=None):
        return inputs + 0.0 * self.scale


class _CutsTheInputOff(_Good):
    def call(self, inputs, training=None):
        return super().call(tf.stop_gradient(inputs))


class _StartsWithTwins(_Good):
    def build(self, input_shape):
        for name in "ab":
            initializer = tf_keras.initializers.RandomNormal(seed=1)
            self.add_weight(name, input_shape[-1:], initializer=initializer)
        super().build(input_shape)


class _LeavesTheComputeType(_Good):
    def call(self, inputs, training=None):
        return tf.cast(super().call(inputs), tf.float32)


class _KeepsHalfAVariable(_Good):
    def build(self, input_shape):
        super().build(input_shape)
        self.add_weight("half", [], dtype=self.compute_dtype, trainable=False)


class _DividesByTheBatch(_Good):
    def call(self, inputs, training=None):
        if training:
            self.add_loss(tf.reduce_mean(inputs))
        return super().call(inputs)


class _DependsOnTheMode(_Good):
    def call(self, inputs, training=None):
        eager = tf.executing_eagerly()
        return super().call(inputs) + (0.0 if eager else 1.0)


class BatteryTest(testing.TestCase):
    def test_passes_a_layer_that_works(self):
        layer = self.run_layer_test(
            _Works(power=2.0), input_shape=(3, 4), output_shape=(3, 4), num_weights=1
        )
        self.assertTrue(layer.built)

    @parameterized.named_parameters(
        ("config", _ForgetsAnArgument, "config"),
        ("rows", _MixesRows, "graph"),
        ("batch_size", _KeepsTheBatchSize, "graph"),
        ("no_gradient", _HasNoGradient, "gradients"),
        ("zero_gradient", _HasAZeroGradient, "gradients"),
        ("input_gradient", _CutsTheInputOff, "gradients"),
        ("compute_type", _LeavesTheComputeType, "mixed_float16"),
        ("half_variable", _KeepsHalfAVariable, "mixed_float16"),
        ("empty_batch", _DividesByTheBatch, "empty_training"),
        ("eager", _DependsOnTheMode, "graph"),
        ("not_registered", _Good, "model"),
    )
    def test_finds(self, cls, step):
        with self.assertRaises(Exception) as caught:
            self.run_layer_test(
                cls(power=2.0),
                input_shape=(3, 4),
                output_shape=(3, 4),
                skip={"jit": "the layers here are about other steps"},
            )
        notes = caught.exception.__notes__
        self.assertIn(f"in step {step!r} of the standard test", notes)

    def test_finds_twins_and_wrong_counts(self):
        with self.assertRaisesRegex(AssertionError, "should have been different|equal"):
            self.run_layer_test(
                _StartsWithTwins(), input_shape=(3, 4), output_shape=(3, 4)
            )
        with self.assertRaisesRegex(AssertionError, "has length of 1, expected 2"):
            self.run_layer_test(
                _Good(), input_shape=(3, 4), output_shape=(3, 4), num_weights=2
            )
        with self.assertRaisesRegex(AssertionError, "4"):
            self.run_layer_test(_Good(), input_shape=(3, 4), output_shape=(3, 5))

    def test_config_test_finds_what_is_lost_or_left_out(self):
        with self.assertRaisesRegex(AssertionError, "`power` changed"):
            self.run_config_test(_ForgetsAnArgument, {"power": 2.0})
        with self.assertRaisesRegex(AssertionError, "never set off their default"):
            self.run_config_test(_Good, {"power": 1.0})
        self.run_config_test(_Good, {"power": 2.0})

    def test_rejects_unknown_steps_and_missing_inputs(self):
        with self.assertRaisesRegex(ValueError, r"must name steps.*Received: 'speed'"):
            self.run_layer_test(
                _Good(), input_shape=(1, 1), output_shape=(1, 1), skip={"speed": ""}
            )
        with self.assertRaisesRegex(ValueError, "either `input_shape` or `inputs`"):
            self.run_layer_test(_Good(), output_shape=(1, 1))
