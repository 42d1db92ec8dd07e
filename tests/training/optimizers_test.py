"""Tests of the dense variables' optimizers: what is built, and which updates what."""

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import schedules
from monolith_tf import testing
from monolith_tf.training import optimizers
from monolith_tf.training import spec as spec_lib

_DECAY = schedules.ScheduleSpec(
    name="exponential", learning_rate=0.4, decay_steps=10, decay_rate=0.5
)


class ScheduleTest(testing.TestCase):
    def test_a_factor_multiplies_the_rate(self):
        step = tf.constant(10, tf.int64)
        self.assertAllClose(optimizers.Schedule(_DECAY)(step), 0.2)
        scale = tf.Variable(0.25)
        self.assertAllClose(optimizers.Schedule(_DECAY, scale)(step), 0.05)
        self.assertAllClose(optimizers.Schedule(0.4, scale)(step), 0.1)
        scale.assign(0.5)
        self.assertAllClose(optimizers.Schedule(0.4, scale)(step), 0.2)

    def test_its_config_holds_the_spec(self):
        self.assertEqual(optimizers.Schedule(0.4).get_config(), {"rate": 0.4})
        config = optimizers.Schedule(_DECAY).get_config()
        self.assertEqual(config["decay_steps"], 10)


class BuildTest(testing.TestCase):
    @parameterized.parameters(
        (
            "adam",
            tf_keras.optimizers.Adam,
            {"beta_1": 0.8, "beta_2": 0.7, "epsilon": 0.1},
        ),
        ("adamw", tf_keras.optimizers.AdamW, {"beta_1": 0.8, "weight_decay": 0.3}),
        (
            "adagrad",
            tf_keras.optimizers.Adagrad,
            {"initial_accumulator_value": 0.7, "epsilon": 0.2},
        ),
        ("sgd", tf_keras.optimizers.SGD, {}),
        ("momentum", tf_keras.optimizers.SGD, {"momentum": 0.6, "nesterov": True}),
        ("rmsprop", tf_keras.optimizers.RMSprop, {"rho": 0.7, "epsilon": 0.2}),
        ("lion", tf_keras.optimizers.Lion, {"beta_1": 0.7, "beta_2": 0.6}),
    )
    def test_arguments_arrive(self, name, kind, arguments):
        spec = spec_lib.DenseOptimizerSpec(name=name, learning_rate=0.05, **arguments)
        built = optimizers.build(spec)
        self.assertIs(type(built), kind)
        config = built.get_config()
        self.assertAllClose(config["learning_rate"], 0.05)
        for key, value in arguments.items():
            self.assertEqual(config[key], value, key)
        if name == "sgd":
            self.assertEqual(config["momentum"], 0.0)
        if name == "adam":
            self.assertIsNone(config["weight_decay"])

    def test_ftrl(self):
        spec = spec_lib.DenseOptimizerSpec(
            name="ftrl",
            learning_rate=0.05,
            initial_accumulator_value=0.3,
            l1=0.1,
            l2=0.2,
        )
        config = optimizers.build(spec).get_config()
        self.assertEqual(config["initial_accumulator_value"], 0.3)
        self.assertEqual(config["l1_regularization_strength"], 0.1)
        self.assertEqual(config["l2_regularization_strength"], 0.2)

    def test_a_schedule_or_a_factor_changes_the_rate_while_training(self):
        scale = tf.Variable(1.0)
        plain = spec_lib.DenseOptimizerSpec(name="sgd", learning_rate=1.0)
        falling = spec_lib.DenseOptimizerSpec(name="sgd", learning_rate=_DECAY)
        weight = tf.Variable(0.0)
        for built, expected in (
            (optimizers.build(plain), -1.0),
            (optimizers.build(plain, scale), -0.5),
            (optimizers.build(falling), -0.4),
            (optimizers.build(falling, scale), -0.2),
        ):
            weight.assign(0.0)
            scale.assign(0.5)
            built.build([weight])
            built.apply_gradients([(tf.constant(1.0), weight)])
            self.assertAllClose(weight, expected)


class DenseUpdateTest(testing.TestCase):
    def test_each_variable_is_updated_by_its_own_and_without_a_gradient_not(self):
        default, own = tf_keras.optimizers.SGD(1.0), tf_keras.optimizers.SGD(0.5)
        weights = [tf.Variable(0.0) for _ in range(4)]
        weights[1].optimizer = own
        weights[3].optimizer = None
        update = optimizers.DenseUpdate(default, weights)
        self.assertEqual([id(o) for o, _ in update.groups], [id(default), id(own)])
        self.assertEqual([len(members) for _, members in update.groups], [3, 1])
        one = tf.constant(1.0)
        update.apply(list(zip([one, one, None, one], weights, strict=True)))
        self.assertAllClose([w.numpy() for w in weights], [-1.0, -0.5, 0.0, -1.0])
        self.assertEqual(int(default.iterations), 1)
        # The variable with its own optimizer has no gradient.
        update.apply(list(zip([one, None, None, None], weights, strict=True)))
        self.assertEqual((int(default.iterations), int(own.iterations)), (2, 1))

    def test_the_default_is_the_first_group_though_it_has_no_variable(self):
        default, own = tf_keras.optimizers.SGD(1.0), tf_keras.optimizers.SGD(0.5)
        weight = tf.Variable(0.0)
        weight.optimizer = own
        update = optimizers.DenseUpdate(default, [weight])
        self.assertEqual([id(o) for o, _ in update.groups], [id(default), id(own)])

    def test_gradients_that_travel_together_arrive_at_their_variables(self):
        shapes = [[3], [2, 2], [], [4, 1]]
        dtypes = [tf.float32, tf.float32, tf.float64, tf.float32]
        pairs = [
            (
                tf.constant(self.rng.normal(size=shape), dtype),
                tf.Variable(tf.zeros(shape, dtype)),
            )
            for shape, dtype in zip(shapes, dtypes, strict=True)
        ]
        sparse = tf.IndexedSlices(
            tf.ones([1, 2]), tf.constant([1]), tf.constant([3, 2])
        )
        pairs.append((sparse, tf.Variable(tf.zeros([3, 2]))))
        sent = optimizers._sent(pairs)
        by_variable = {variable.ref(): gradient for gradient, variable in sent}
        self.assertLen(by_variable, len(pairs))
        for gradient, variable in pairs[:-1]:
            np.testing.assert_array_equal(by_variable[variable.ref()], gradient)
        self.assertIs(by_variable[pairs[-1][1].ref()], sparse)
