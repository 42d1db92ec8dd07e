"""Tests of what every row optimizer's arithmetic must keep to."""

import itertools

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.optimizers import row_state
from monolith_tf.embedding.optimizers import rules as optimizers

# Floats of state in a row of 8 weights.
STATE_DIMS = {
    "sgd": 0,
    "adagrad": 8,
    "rowwise_adagrad": 1,
    "group_adagrad": 1,
    "adadelta": 16,
    "adam": 18,
    "amsgrad": 26,
    "momentum": 8,
    "momentum_nesterov": 8,
    "moving_average": 0,
    "rmsprop": 8,
    "rmsprop_v2": 8,
    "ftrl": 16,
    "group_ftrl": 16,
    "lion": 8,
    "batch_softmax": 1,
    "monolith_adagrad": 8,
    "monolith_adadelta": 16,
    "monolith_adam": 18,
    "monolith_rmsprop": 8,
    "monolith_ftrl": 16,
}


def spec_of(kind):
    if kind == "momentum_nesterov":
        return optimizer_spec.MomentumSpec(nesterov=True)
    return optimizer_spec.row_optimizer(kind)


def initial_state(spec, count, dim):
    return np.array([optimizers.initial_state(spec, dim)] * count, np.float32)


def column(value, count):
    return np.full([count, 1], value, np.float32)


class UpdateRulesTest(testing.TestCase):
    @parameterized.parameters(*STATE_DIMS)
    def test_state_has_the_width_it_declares(self, kind):
        spec = spec_of(kind)
        self.assertEqual(optimizers.kind(spec), kind)
        dims = row_state.part_dims(kind, 8)
        self.assertEqual([dims[0], sum(dims[1:])], [8, STATE_DIMS[kind]])
        self.assertEqual(row_state.state_dim(kind, 8), STATE_DIMS[kind])
        self.assertLen(optimizers.initial_state(spec, 8), STATE_DIMS[kind])

    @parameterized.product(kind=list(STATE_DIMS), dim=[1, 5, 16])
    def test_a_row_comes_out_the_same_wherever_it_stands(self, kind, dim):
        # Vector instructions end before the last rows of a tensor; what is computed
        # there must not differ in a single bit.
        spec, count = spec_of(kind), 103
        hyper = {
            name: self.rng.uniform(0.2, 0.8, [count, 1]).astype("float32")
            for name in optimizers.hyperparameters(spec)
        }
        rates = self.rng.uniform(0.01, 0.1, [count, 1]).astype("float32")
        weights = self.rng.normal(size=(count, dim)).astype("float32")
        state = initial_state(spec, count, dim)
        gradients = self.rng.normal(size=(3, count, dim)).astype("float32")

        def train(rows):
            parts = [weights[rows], state[rows]]
            for step in range(3):
                parts = optimizers.apply(
                    kind,
                    *parts,
                    gradients[step][rows],
                    rates[rows],
                    {name: values[rows] for name, values in hyper.items()},
                    step + 1,
                )
            return np.concatenate(parts, axis=1)

        pieces = [slice(0, 1), slice(1, 30), slice(30, count)]
        np.testing.assert_array_equal(
            train(slice(None)), np.concatenate([train(piece) for piece in pieces])
        )

    @parameterized.parameters(*STATE_DIMS)
    def test_numbers_and_columns_eager_and_graph_agree_in_every_bit(self, kind):
        # Tables that share rows hand their numbers over as columns.
        spec, count = spec_of(kind), 21
        numbers = {
            name: float(self.rng.uniform(0.2, 0.8))
            for name in optimizers.hyperparameters(spec)
        }
        weights = self.rng.normal(size=(count, 5)).astype("float32")
        state = initial_state(spec, count, 5)
        gradients = self.rng.normal(size=(2, count, 5)).astype("float32")
        columns = {name: column(value, count) for name, value in numbers.items()}

        def train(rate, hyper, in_graph):
            # Columns are arguments, numbers are constants of the graph.
            def step(weights, state, gradients, columns):
                given = {"rate": rate, **hyper, **columns}
                return optimizers.apply(
                    kind, weights, state, gradients, given.pop("rate"), given, 3
                )

            step = tf.function(step) if in_graph else step
            arguments = {k: tf.constant(v) for k, v in hyper.items() if np.ndim(v)}
            if np.ndim(rate):
                arguments["rate"] = tf.constant(rate)
            parts = [tf.constant(weights), tf.constant(state)]
            for gradient in gradients:
                parts = step(*parts, tf.constant(gradient), arguments)
            return np.concatenate(parts, axis=1)

        expected = train(0.037, numbers, in_graph=False)
        for rate, hyper, in_graph in itertools.product(
            (0.037, column(0.037, count)), (numbers, columns), (False, True)
        ):
            np.testing.assert_array_equal(train(rate, hyper, in_graph), expected)

    @parameterized.parameters(*STATE_DIMS)
    def test_a_zero_equals_a_column_of_zeros(self, kind):
        spec = spec_of(kind)
        numbers = optimizers.hyperparameters(spec)
        arguments = [
            self.rng.normal(size=(9, 4)).astype("float32"),
            initial_state(spec, 9, 4),
            self.rng.normal(size=(9, 4)).astype("float32"),
            0.1,
        ]
        columns = {name: column(value, 9) for name, value in numbers.items()}
        self.assertIn(0.0, numbers.values())
        for one, other in zip(
            optimizers.apply(kind, *arguments, numbers, 3),
            optimizers.apply(kind, *arguments, columns, 3),
            strict=True,
        ):
            self.assertAllEqual(one, other)

    @parameterized.parameters(*STATE_DIMS)
    def test_accepts_no_rows_in_a_graph(self, kind):
        spec = spec_of(kind)
        hyper = optimizers.hyperparameters(spec)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, 8]),
                tf.TensorSpec([None, STATE_DIMS[kind]]),
                tf.TensorSpec([], tf.int64),
            ]
        )
        def update(weights, state, step):
            new = optimizers.apply(kind, weights, state, weights, 0.1, hyper, step)
            self.assertEqual(new[0].shape.as_list(), [None, 8])
            self.assertEqual(new[1].shape.as_list(), [None, STATE_DIMS[kind]])
            return new

        state = tf.zeros([0, STATE_DIMS[kind]])
        for old, new in zip(
            (tf.zeros([0, 8]), state), update(tf.zeros([0, 8]), state, 5), strict=True
        ):
            self.assertEqual(old.shape, new.shape)

    @parameterized.parameters(*STATE_DIMS)
    def test_first_gradient_of_zero_leaves_zeros(self, kind):
        spec = spec_of(kind)
        numbers = optimizers.hyperparameters(spec)
        columns = {name: column(value, 2) for name, value in numbers.items()}
        zeros = np.zeros([2, 4], np.float32)
        for hyper in (numbers, columns):
            weights, state = optimizers.apply(
                kind, zeros, initial_state(spec, 2, 4), zeros, 0.1, hyper, 0
            )
            self.assertAllEqual(weights, zeros)
            self.assertAllInRange(state, 0.0, 1.0)

    def test_adagrad_takes_six_operations(self):
        hyper = optimizers.hyperparameters(optimizer_spec.MonolithAdagradSpec())

        @tf.function
        def update(weights, state, gradients, rate):
            return optimizers.apply(
                "monolith_adagrad", weights, state, gradients, rate, hyper, 0
            )

        graph = update.get_concrete_function(
            *[tf.TensorSpec([None, 4])] * 3, tf.TensorSpec([])
        ).graph
        operations = [operation.type for operation in graph.get_operations()]
        passive = {"Placeholder", "Identity", "Const", "NoOp"}
        self.assertCountEqual(
            [operation for operation in operations if operation not in passive],
            ["Square", "AddV2", "Sqrt", "Mul", "DivNoNan", "Sub"],
        )

    def test_powers_of_adam_outlast_their_precision(self):
        # After many updates the correction has become 1 and the update stays finite.
        spec = optimizer_spec.AdamSpec(learning_rate=1.0)
        state = np.array([[0.5, 0.25, 1e-38, 1e-38]], np.float32)
        hyper = optimizers.hyperparameters(spec) | {"epsilon": 0.0}
        for _ in range(200):
            weights, state = optimizers.apply(
                "adam", tf.zeros([1, 1]), state, [[0.5]], 1.0, hyper, 0
            )
        self.assertAllClose(weights, [[-1.0]], rtol=1e-4)
        self.assertAllInRange(state[:, 2:], 0.0, 1e-38)
