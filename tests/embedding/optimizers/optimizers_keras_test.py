"""Tests of the row optimizers against dense training by tf_keras."""

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.optimizers import rules as optimizers
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

# Name here -> class of `tf_keras`; defaults on both sides.
NAMES = {
    "sgd": "SGD",
    "adagrad": "Adagrad",
    "adadelta": "Adadelta",
    "adam": "Adam",
    "rmsprop": "RMSprop",
    "ftrl": "Ftrl",
    "lion": "Lion",
}


def _dense(theirs, **options):
    """The optimizer of Keras, uncompiled."""
    return getattr(tf_keras.optimizers, theirs)(jit_compile=False, **options)


class KerasAgreementTest(testing.TestCase):
    """The optimizers, and their settings, that mean the same in both."""

    def _check(self, spec, dense, scale=1.0):
        weights = self.rng.normal(size=(3, 4)).astype("float32")
        variable = tf.Variable(weights)
        dense.build([variable])
        kind, hyper = optimizers.kind(spec), optimizers.hyperparameters(spec)
        state = tf.constant([optimizers.initial_state(spec, 4)] * 3, tf.float32)
        start = weights
        for step in range(20):
            gradients = scale * self.rng.normal(size=(3, 4)).astype("float32")
            dense.apply_gradients([(tf.constant(gradients), variable)])
            weights, state = optimizers.apply(
                kind, weights, state, gradients, spec.learning_rate, hyper, step
            )
            moved = np.abs(variable - start).max()
            self.assertAllClose(
                weights - start, variable - start, rtol=1e-4, atol=2e-5 * moved + 2e-7
            )

    # Small gradients show where epsilon stands.
    @parameterized.product(name=list(NAMES), scale=[1.0, 1e-3])
    def test_names_of_keras_mean_the_same(self, name, scale):
        spec = optimizer_spec.row_optimizer(name)
        self._check(spec, _dense(NAMES[name]), scale)

    @parameterized.named_parameters(
        ("sgd", {"name": "sgd", "weight_decay": 0.1}, "SGD", {"weight_decay": 0.1}),
        (
            "adagrad",
            {"name": "adagrad", "initial_accumulator_value": 0.3, "epsilon": 0.1},
            "Adagrad",
            {"initial_accumulator_value": 0.3, "epsilon": 0.1},
        ),
        (
            "monolith_adagrad",
            {"name": "monolith_adagrad", "initial_accumulator_value": 0.3},
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
        (
            "sgd_momentum",
            {"name": "sgd", "momentum": 0.8, "nesterov": True},
            "SGD",
            {"momentum": 0.8, "nesterov": True},
        ),
        (
            "adam",
            {"name": "adam", "epsilon": 0.1, "beta_2": 0.9, "weight_decay": 0.1},
            "Adam",
            {"beta_2": 0.9, "epsilon": 0.1, "weight_decay": 0.1},
        ),
        # tf_keras adds epsilon to the root before bias correction, so it must be small.
        (
            "monolith_adam",
            {"name": "monolith_adam", "epsilon": 1e-9, "weight_decay": 0.1},
            "Adam",
            {"beta_2": 0.99, "epsilon": 1e-9, "weight_decay": 0.1},
        ),
        (
            "amsgrad",
            {"name": "amsgrad", "epsilon": 1e-9, "beta_2": 0.5},
            "Adam",
            {"beta_2": 0.5, "epsilon": 1e-9, "amsgrad": True},
        ),
        (
            "monolith_adadelta",
            {"name": "monolith_adadelta"},
            "Adadelta",
            {"rho": 0.9, "epsilon": 0.01},
        ),
        ("rmsprop", {"name": "rmsprop", "epsilon": 0.5}, "RMSprop", {"epsilon": 0.5}),
        # tf_keras adds epsilon below the root, so it must be small.
        (
            "monolith_rmsprop",
            {"name": "monolith_rmsprop", "epsilon": 1e-9},
            "RMSprop",
            {"rho": 0.9, "epsilon": 0.0},
        ),
        (
            "ftrl",
            {"name": "ftrl", "l1": 0.5, "l2": 0.4, "beta": 0.2},
            "Ftrl",
            {
                "l1_regularization_strength": 0.5,
                "l2_regularization_strength": 0.4,
                "beta": 0.2,
            },
        ),
        # tf_keras doubles l2.
        (
            "monolith_ftrl",
            {"name": "monolith_ftrl", "l1": 0.5, "l2": 0.4},
            "Ftrl",
            {"l1_regularization_strength": 0.5, "l2_regularization_strength": 0.2},
        ),
        ("lion", {"name": "lion", "beta_1": 0.5}, "Lion", {"beta_1": 0.5}),
    )
    def test_settings_mean_the_same(self, ours, theirs, options):
        spec = optimizer_spec.row_optimizer(**ours, learning_rate=0.05)
        self._check(spec, _dense(theirs, learning_rate=0.05, **options))

    @parameterized.parameters(*NAMES)
    def test_all_rows_learn_as_in_keras_where_all_are_updated(self, name):
        spec = optimizer_spec.row_optimizer(name)
        table = TableSpec(name="t", slot=1, dim=3, update_rows="all", optimizer=spec)
        columns = [ColumnSpec(feature="f", table="t")]
        store = EmbeddingStore([table], columns, capacity=16)
        ids = tf.constant((1 << 48) + np.arange(6))

        def step(places, gradients, number):
            pulled = store.lookup({"f": tf.gather(ids, places)}, training=True)
            with tf.GradientTape() as tape:
                tape.watch(pulled.rows)
                loss = tf.reduce_sum(store.combine(pulled)["f"]["vec"] * gradients)
            store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), number)

        def read():
            pulled = store.lookup({"f": ids}, training=False)
            return store.combine(pulled)["f"]["vec"].numpy()

        store.lookup({"f": ids}, training=True)
        start = read()
        variable, dense = tf.Variable(start), _dense(NAMES[name])
        dense.build([variable])
        for number in range(6):
            places = self.rng.permutation(6)[: 6 if number == 0 else 2]
            gradients = np.zeros([6, 3], np.float32)
            gradients[places] = self.rng.normal(size=(len(places), 3))
            step(places, gradients[places], number)
            dense.apply_gradients([(tf.constant(gradients), variable)])
            moved = np.abs(variable - start).max()
            self.assertAllClose(
                read() - start, variable - start, rtol=1e-4, atol=2e-5 * moved + 2e-7
            )
