"""Tests of the row optimizers against dense training by tf_keras."""

import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding import optimizers


class KerasAgreementTest(testing.TestCase):
    """The optimizers, and their settings, that mean the same in both."""

    @parameterized.named_parameters(
        ("sgd", {"name": "sgd", "weight_decay": 0.1}, "SGD", {"weight_decay": 0.1}),
        (
            "adagrad",
            {"name": "adagrad", "initial_accumulator_value": 0.3},
            "Adagrad",
            {"initial_accumulator_value": 0.3, "epsilon": 0.0},
        ),
        ("momentum", {"name": "momentum"}, "SGD", {"momentum": 0.9}),
        (
            "nesterov",
            {"name": "momentum", "nesterov": True},
            "SGD",
            {"momentum": 0.9, "nesterov": True},
        ),
        # tf_keras adds epsilon to the root before bias correction, so it must be small.
        (
            "adam",
            {"name": "adam", "epsilon": 1e-9, "weight_decay": 0.1},
            "Adam",
            {"beta_2": 0.99, "epsilon": 1e-9, "weight_decay": 0.1},
        ),
        (
            "amsgrad",
            {"name": "amsgrad", "epsilon": 1e-9, "beta_2": 0.5},
            "Adam",
            {"beta_2": 0.5, "epsilon": 1e-9, "amsgrad": True},
        ),
        ("adadelta", {"name": "adadelta"}, "Adadelta", {"rho": 0.9, "epsilon": 0.01}),
        # tf_keras adds epsilon below the root, so it must be small.
        (
            "rmsprop",
            {"name": "rmsprop", "epsilon": 1e-9},
            "RMSprop",
            {"rho": 0.9, "epsilon": 0.0},
        ),
        # tf_keras doubles l2.
        (
            "ftrl",
            {"name": "ftrl", "l1": 0.5, "l2": 0.4, "beta": 0.2},
            "Ftrl",
            {
                "l1_regularization_strength": 0.5,
                "l2_regularization_strength": 0.2,
                "beta": 0.2,
            },
        ),
        ("lion", {"name": "lion"}, "Lion", {"beta_1": 0.9, "beta_2": 0.99}),
    )
    def test_equals_tf_keras_when_every_row_is_touched(self, ours, theirs, options):
        spec = optimizer_spec.row_optimizer(**ours, learning_rate=0.05)
        dense = getattr(tf_keras.optimizers, theirs)(
            learning_rate=0.05, jit_compile=False, **options
        )
        weights = self.rng.normal(size=(3, 4)).astype("float32")
        variable = tf.Variable(weights)
        dense.build([variable])
        kind, hyper = optimizers.kind(spec), optimizers.hyperparameters(spec)
        state = tf.constant([optimizers.initial_state(spec, 4)] * 3, tf.float32)
        for step in range(20):
            gradients = self.rng.normal(size=(3, 4)).astype("float32")
            dense.apply_gradients([(tf.constant(gradients), variable)])
            weights, state = optimizers.apply(
                kind, weights, state, gradients, 0.05, hyper, step
            )
            self.assertAllClose(weights, variable, rtol=1e-4, atol=1e-5)
