"""Tests of the row optimizers against their formulas in NumPy."""

import dataclasses

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.optimizers import rules as optimizers


# One row's update in float64, written from the published formulas: w and g are one
# row's weights and gradient, s is the row's state, h the optimizer's numbers.
def sgd(w, g, lr, s, h, step):
    return w - lr * g


def adagrad(w, g, lr, s, h, step):
    s["n"] = s.get("n", h["initial_accumulator_value"]) + g**2
    return w - lr * g / (s["n"] + h["epsilon"]) ** 0.5


def monolith_adagrad(w, g, lr, s, h, step):
    s["n"] = s.get("n", h["initial_accumulator_value"]) + g**2
    return w - lr * g / (s["n"] ** 0.5 + h["epsilon"])


def rowwise_adagrad(w, g, lr, s, h, step):
    s["n"] = s.get("n", h["initial_accumulator_value"]) + sum(g**2) / len(g)
    return w - lr * g / (s["n"] ** 0.5 + h["epsilon"])


def group_adagrad(w, g, lr, s, h, step):
    s["n"] = s.get("n", h["initial_accumulator_value"]) + max(g**2)
    e = lr / (h["beta"] + s["n"] ** 0.5)
    z = w - e * g
    return z * max(0.0, 1 - e * h["l2"] / np.linalg.norm(z))


def adadelta(w, g, lr, s, h, step):
    r, eps = h["rho"], h["epsilon"]
    s["a"] = r * s.get("a", 0) + (1 - r) * g**2
    d = np.sqrt(s.get("u", 0) + eps) / np.sqrt(s["a"] + eps) * g
    s["u"] = r * s.get("u", 0) + (1 - r) * d**2
    return w - lr * d


monolith_adadelta = adadelta


def adam(w, g, lr, s, h, step):
    monolith_adam(w, g, lr, s, h, step)
    rate = lr * np.sqrt(1 - h["beta_2"] ** s["t"]) / (1 - h["beta_1"] ** s["t"])
    return w - rate * s["m"] / (np.sqrt(s["v"]) + h["epsilon"])


def monolith_adam(w, g, lr, s, h, step):
    b1, b2 = h["beta_1"], h["beta_2"]
    s["t"] = s.get("t", 0) + 1
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g**2
    return _adam_step(w, lr, s, h, s["v"])


def amsgrad(w, g, lr, s, h, step):
    monolith_adam(w, g, lr, s, h, step)
    s["x"] = np.maximum(s.get("x", 0), s["v"])
    return _adam_step(w, lr, s, h, s["x"])


def _adam_step(w, lr, s, h, v):
    m = s["m"] / (1 - h["beta_1"] ** s["t"])
    return w - lr * m / (np.sqrt(v / (1 - h["beta_2"] ** s["t"])) + h["epsilon"])


def momentum(w, g, lr, s, h, step):
    s["n"] = h["momentum"] * s.get("n", 0) - lr * g
    return w + (h["momentum"] * s["n"] - lr * g if h["nesterov"] else s["n"])


def moving_average(w, g, lr, s, h, step):
    average = h["momentum"] * w + (1 - h["momentum"]) * g
    return (1 - lr) * w + lr * average


def rmsprop(w, g, lr, s, h, step):
    s["n"] = h["rho"] * s.get("n", 0) + (1 - h["rho"]) * g**2
    return w - lr * g / np.sqrt(s["n"] + h["epsilon"])


def monolith_rmsprop(w, g, lr, s, h, step):
    s["n"] = h["rho"] * s.get("n", 0) + (1 - h["rho"]) * g**2
    return w - lr * g / (np.sqrt(s["n"]) + h["epsilon"])


def rmsprop_v2(w, g, lr, s, h, step):
    s["n"] = h["rho"] * s.get("n", 0) + g**2
    return w - lr * g / (np.sqrt(s["n"]) + h["epsilon"])


def ftrl(w, g, lr, s, h, step):
    return monolith_ftrl(w, g, lr, s, h | {"l2": 2 * h["l2"]}, step)


def monolith_ftrl(w, g, lr, s, h, step):
    divisor = _ftrl_state(w, g, lr, s, h)
    z, l1 = s["z"], h["l1"]
    return np.where(np.abs(z) <= l1, 0.0, -(z - np.sign(z) * l1) / divisor)


def group_ftrl(w, g, lr, s, h, step):
    divisor = _ftrl_state(w, g, lr, s, h)
    norm, bound = np.linalg.norm(s["z"]), h["l1"] * len(w) ** 0.5
    return 0 * w if norm <= bound else -(1 - bound / norm) * s["z"] / divisor


def _ftrl_state(w, g, lr, s, h):
    before = s.get("n", h["initial_accumulator_value"])
    s["n"] = before + g**2
    s["z"] = s.get("z", 0) + g - w * (np.sqrt(s["n"]) - np.sqrt(before)) / lr
    return (h["beta"] + np.sqrt(s["n"])) / lr + h["l2"]


def lion(w, g, lr, s, h, step):
    m = s.get("m", 0)
    s["m"] = h["beta_2"] * m + (1 - h["beta_2"]) * g
    return w - lr * np.sign(h["beta_1"] * m + (1 - h["beta_1"]) * g)


def batch_softmax(w, g, lr, s, h, step):
    interval = step - s.get("last_step", 0)
    s["last_step"] = step
    return (1 - lr) * w + lr * interval


# For every optimizer two specs that differ in every number, so that a table of rows
# that take turns between the two tests numbers that differ from row to row.
CASES = {
    "sgd": ({}, {"learning_rate": 0.5}),
    "adagrad": ({}, {"initial_accumulator_value": 1.0, "epsilon": 0.1}),
    "monolith_adagrad": ({}, {"initial_accumulator_value": 1.0, "epsilon": 0.1}),
    "rowwise_adagrad": ({}, {"initial_accumulator_value": 1.0, "epsilon": 0.1}),
    "group_adagrad": (
        {"l2": 0.3},
        {"initial_accumulator_value": 1.0, "beta": 0.5, "learning_rate": 0.1},
    ),
    "adadelta": (
        {"epsilon": 0.01},
        {"rho": 0.5, "epsilon": 0.1, "learning_rate": 1.0},
    ),
    "monolith_adadelta": ({}, {"rho": 0.5, "epsilon": 0.1, "learning_rate": 1.0}),
    "adam": (
        {"epsilon": 0.1, "beta_2": 0.99},
        {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e-3},
    ),
    "monolith_adam": ({}, {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e-3}),
    "amsgrad": ({}, {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 1e-3}),
    "momentum": ({}, {"momentum": 0.5, "learning_rate": 0.1}),
    "momentum_nesterov": (
        {"nesterov": True},
        {"nesterov": True, "momentum": 0.5, "learning_rate": 0.1},
    ),
    "moving_average": ({}, {"momentum": 0.5, "learning_rate": 0.7}),
    "rmsprop": ({"epsilon": 1.0}, {"rho": 0.5, "epsilon": 0.1}),
    "monolith_rmsprop": ({}, {"rho": 0.5, "epsilon": 0.1}),
    "rmsprop_v2": ({}, {"rho": 0.5, "epsilon": 0.1}),
    "ftrl": (
        {"l1": 0.5, "learning_rate": 0.5},
        {"initial_accumulator_value": 1.0, "beta": 0.3, "l2": 0.4, "l1": 1.5},
    ),
    "monolith_ftrl": (
        {"l1": 0.5, "learning_rate": 0.5},
        {"initial_accumulator_value": 1.0, "beta": 0.3, "l2": 0.4, "l1": 1.5},
    ),
    "group_ftrl": (
        {"l1": 0.5, "learning_rate": 0.5},
        {"initial_accumulator_value": 1.0, "beta": 0.3, "l2": 0.4, "l1": 1.2},
    ),
    "lion": ({"learning_rate": 0.01}, {"beta_1": 0.5, "beta_2": 0.7}),
    "batch_softmax": ({}, {"learning_rate": 0.3}),
}


def make_spec(case, **hyperparameters):
    name = case.removesuffix("_nesterov")
    return optimizer_spec.row_optimizer(name, **hyperparameters)


def fields(spec):
    return {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}


class RowTable:
    """Rows of weights and state, updated only where a step touches them."""

    def __init__(self, specs, weights):
        self._kind = optimizers.kind(specs[0])
        states = [optimizers.initial_state(spec, weights.shape[1]) for spec in specs]
        self.weights = weights.copy()
        self.state = np.array(states, np.float32).reshape(len(specs), -1)
        self._rates = np.array([[spec.learning_rate] for spec in specs], np.float32)
        numbers = [optimizers.hyperparameters(spec) for spec in specs]
        self._hyper = {
            name: np.array([[row[name]] for row in numbers], np.float32)
            for name in numbers[0]
        }
        self._update = tf.function(
            lambda *arguments: optimizers.apply(self._kind, *arguments),
            reduce_retracing=True,
        )

    def push(self, rows, gradients, step):
        weights, state = self._update(
            tf.constant(self.weights[rows]),
            tf.constant(self.state[rows]),
            tf.constant(gradients),
            tf.constant(self._rates[rows]),
            {name: tf.constant(column[rows]) for name, column in self._hyper.items()},
            tf.constant(step, tf.int64),
        )
        self.weights[rows] = weights
        self.state[rows] = state


class OptimizersTest(testing.TestCase):
    @parameterized.product(case=list(CASES), weight_decay=[0.0, 0.2])
    def test_matches_definition_when_rows_are_touched_at_different_times(
        self, case, weight_decay
    ):
        definition = globals()[case.removesuffix("_nesterov")]
        numbers = CASES[case]
        specs = [
            make_spec(
                case, weight_decay=weight_decay * (row % 2 + 1), **numbers[row % 2]
            )
            for row in range(6)
        ]
        weights = self.rng.normal(size=(6, 4)).astype("float32")
        table = RowTable(specs, weights)
        expected = weights.astype("float64")
        states = [{} for _ in specs]
        for step in range(25):
            rows = np.flatnonzero(self.rng.random(6) < (0.9, 0.5, 0.1)[step % 3])
            gradients = self.rng.normal(size=(len(rows), 4)).astype("float32")
            table.push(rows, gradients, step)
            for row, gradient in zip(rows, gradients.astype("float64"), strict=True):
                h = fields(specs[row])
                lr = h["learning_rate"]
                decayed = expected[row] * (1 - lr * h["weight_decay"])
                expected[row] = definition(decayed, gradient, lr, states[row], h, step)
            self.assertAllClose(table.weights, expected, rtol=2e-4, atol=2e-5)
        self.assertNotAllClose(expected, weights)

    def test_group_lasso_zeroes_whole_rows(self):
        hyper = {"beta": 0.0, "l2": 1.0, "weight_decay": 0.0}
        # n = 1 + 0, e = 1 / 1; norm(z) is 5 and 0.5, so factors are 1 - 1/5 and 0.
        weights, _ = optimizers.apply(
            "group_adagrad",
            tf.constant([[3.0, 4.0], [0.3, 0.4]]),
            tf.ones([2, 1]),
            tf.zeros([2, 2]),
            1.0,
            hyper,
            0,
        )
        self.assertAllClose(weights, [[2.4, 3.2], [0.0, 0.0]])

    def test_ftrl_signs_are_the_textbook_ones(self):
        # n' = 9 + 16 = 25, z = g = 4 from w = 0; lr 1, l1 1: w = -(4 - 1) / 5; and its
        # mirror image for a negative gradient.
        hyper = {"beta": 0.0, "l1": 1.0, "l2": 0.0, "weight_decay": 0.0}
        weights, state = optimizers.apply(
            "ftrl",
            tf.zeros([2, 1]),
            tf.constant([[0.0, 9.0]] * 2),
            tf.constant([[4.0], [-4.0]]),
            1.0,
            hyper,
            0,
        )
        self.assertAllClose(weights, [[-0.6], [0.6]])
        self.assertAllClose(state, [[4.0, 25.0], [-4.0, 25.0]])

    def test_kind_tells_structure_and_not_numbers(self):
        kinds = {optimizers.kind(make_spec(c, **CASES[c][1])) for c in CASES}
        self.assertLen(kinds, len(CASES))
        for case in CASES:
            first, second = (make_spec(case, **numbers) for numbers in CASES[case])
            self.assertEqual(optimizers.kind(first), optimizers.kind(second))
            self.assertEqual(
                set(optimizers.hyperparameters(first)),
                set(fields(first))
                - {"name", "learning_rate", "initial_accumulator_value", "nesterov"},
            )
