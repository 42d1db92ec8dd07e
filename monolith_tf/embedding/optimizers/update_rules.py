"""The arithmetic of the row optimizers, one function each.

Only operations that IEEE 754 rounds exactly are used: `+ - * /`, square root,
comparison, and sums along a row. TensorFlow's `rsqrt`, `pow` and `exp` give other last
bits at the end of a tensor than in its middle, and a row's result must not depend on
its place among the rows of a step, so that any number of shards trains the same model.
This is why Adam's state holds the powers `beta^t` rather than `t`.

For the same reason no expression has a chain of products or of sums that TensorFlow's
graph optimizer would reorder by shape and by constness: a graph gives the same bits as
eager execution, for numbers and for columns.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple
from typing import TypeAlias

import tensorflow as tf

from monolith_tf.types import Tensor

Hyperparameters: TypeAlias = Mapping[str, float | Tensor]
"""Name -> one number, or one number per row, `[n, 1]`."""


class Rows(NamedTuple):
    """What an update reads: n rows of weights and their gradients, `[n, dim]`."""

    weights: Tensor
    state: Sequence[Tensor]
    gradients: Tensor
    learning_rate: float | Tensor
    hyper: Hyperparameters
    step: Tensor


def is_zero(value: float | Tensor) -> bool:
    """Returns whether a hyperparameter is a plain 0 and needs no operations."""
    return isinstance(value, (int, float)) and value == 0


def _over_root(x: Tensor, n: Tensor, epsilon: float | Tensor) -> Tensor:
    """`x / (sqrt(n) + epsilon)`.

    TensorFlow's graph optimizer turns the plain quotient by a root into a product with
    `rsqrt`; it leaves this one alone.
    """
    return tf.math.divide_no_nan(x, _plus(tf.sqrt(n), epsilon))


def _over_root_of_sum(x: Tensor, n: Tensor, epsilon: float | Tensor) -> Tensor:
    """`x / sqrt(n + epsilon)`."""
    return _over_root(x, _plus(n, epsilon), 0)


def _plus(x: Tensor, value: float | Tensor) -> Tensor:
    return x if is_zero(value) else x + value


def _row_norm(x: Tensor) -> Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(x), axis=1, keepdims=True))  # [n, 1]


def _sgd(rows: Rows) -> list[Tensor]:
    return [rows.weights - rows.learning_rate * rows.gradients]


def _adagrad(rows: Rows) -> list[Tensor]:
    n = rows.state[0] + tf.square(rows.gradients)
    step = _over_root_of_sum(
        rows.learning_rate * rows.gradients, n, rows.hyper["epsilon"]
    )
    return [rows.weights - step, n]


def _monolith_adagrad(rows: Rows) -> list[Tensor]:
    n = rows.state[0] + tf.square(rows.gradients)
    step = _over_root(rows.learning_rate * rows.gradients, n, rows.hyper["epsilon"])
    return [rows.weights - step, n]


def _rowwise_adagrad(rows: Rows) -> list[Tensor]:
    squares = tf.square(rows.gradients)
    n = rows.state[0] + tf.reduce_mean(squares, axis=1, keepdims=True)  # [n, 1]
    rate = _over_root(rows.learning_rate, n, rows.hyper["epsilon"])
    return [rows.weights - rate * rows.gradients, n]


def _group_adagrad(rows: Rows) -> list[Tensor]:
    squares = tf.square(rows.gradients)
    n = rows.state[0] + tf.reduce_max(squares, axis=1, keepdims=True)  # [n, 1]
    rate = _over_root(rows.learning_rate, n, rows.hyper["beta"])
    z = rows.weights - rate * rows.gradients
    l2 = rows.hyper["l2"]
    if not is_zero(l2):
        # A row of norm 0 stays 0 for any factor.
        z *= tf.maximum(1.0 - tf.math.divide_no_nan(rate * l2, _row_norm(z)), 0.0)
    return [z, n]


def _adadelta(rows: Rows) -> list[Tensor]:
    a, u = rows.state
    rho, epsilon = rows.hyper["rho"], rows.hyper["epsilon"]
    a = rho * a + (1.0 - rho) * tf.square(rows.gradients)
    d = tf.sqrt((u + epsilon) / (a + epsilon)) * rows.gradients
    u = rho * u + (1.0 - rho) * tf.square(d)
    return [rows.weights - rows.learning_rate * d, a, u]


def _moments(rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns Adam's state after the gradient: m, v, beta_1^t, beta_2^t."""
    m, v, power1, power2 = rows.state
    beta_1, beta_2 = rows.hyper["beta_1"], rows.hyper["beta_2"]
    m = beta_1 * m + (1.0 - beta_1) * rows.gradients
    v = beta_2 * v + (1.0 - beta_2) * tf.square(rows.gradients)
    return m, v, beta_1 * power1, beta_2 * power2


def _adam_weights(
    rows: Rows, m: Tensor, v: Tensor, power1: Tensor, power2: Tensor
) -> Tensor:
    rate = rows.learning_rate / (1.0 - power1)  # [n, 1]
    root = tf.sqrt(v / (1.0 - power2)) + rows.hyper["epsilon"]
    return rows.weights - rate * m / root


def _adam(rows: Rows) -> list[Tensor]:
    m, v, power1, power2 = state = _moments(rows)
    rate = rows.learning_rate * tf.sqrt(1.0 - power2) / (1.0 - power1)  # [n, 1]
    root = tf.sqrt(v) + rows.hyper["epsilon"]
    return [rows.weights - rate * m / root, *state]


def _monolith_adam(rows: Rows) -> list[Tensor]:
    state = _moments(rows)
    return [_adam_weights(rows, *state), *state]


def _amsgrad(rows: Rows) -> list[Tensor]:
    m, v, x, power1, power2 = rows.state
    m, v, power1, power2 = _moments(rows._replace(state=[m, v, power1, power2]))
    x = tf.maximum(x, v)
    return [_adam_weights(rows, m, x, power1, power2), m, v, x, power1, power2]


def _momentum(rows: Rows) -> list[Tensor]:
    n = rows.hyper["momentum"] * rows.state[0] - rows.learning_rate * rows.gradients
    return [rows.weights + n, n]


def _momentum_nesterov(rows: Rows) -> list[Tensor]:
    momentum = rows.hyper["momentum"]
    move = rows.learning_rate * rows.gradients
    n = momentum * rows.state[0] - move
    return [rows.weights + (momentum * n - move), n]


def _moving_average(rows: Rows) -> list[Tensor]:
    share = rows.learning_rate * (1.0 - rows.hyper["momentum"])
    return [rows.weights + share * (rows.gradients - rows.weights)]


def _rmsprop(rows: Rows) -> list[Tensor]:
    rho = rows.hyper["rho"]
    n = rho * rows.state[0] + (1.0 - rho) * tf.square(rows.gradients)
    step = _over_root_of_sum(
        rows.learning_rate * rows.gradients, n, rows.hyper["epsilon"]
    )
    return [rows.weights - step, n]


def _monolith_rmsprop(rows: Rows) -> list[Tensor]:
    rho = rows.hyper["rho"]
    return _rmsprop_step(rows, (1.0 - rho) * tf.square(rows.gradients))


def _rmsprop_v2(rows: Rows) -> list[Tensor]:
    return _rmsprop_step(rows, tf.square(rows.gradients))


def _rmsprop_step(rows: Rows, squares: Tensor) -> list[Tensor]:
    n = rows.hyper["rho"] * rows.state[0] + squares
    root = tf.sqrt(n) + rows.hyper["epsilon"]
    return [rows.weights - rows.learning_rate * rows.gradients / root, n]


def _ftrl_state(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Returns FTRL's z and n after the gradient, and the divisor of `lr * z`."""
    z, n_before = rows.state
    n = n_before + tf.square(rows.gradients)
    root = tf.sqrt(n)
    pull = (root - tf.sqrt(n_before)) * rows.weights
    # A plain division by a constant rate would become a product with its reciprocal.
    z += rows.gradients - tf.math.divide_no_nan(pull, rows.learning_rate)
    beta, l2 = rows.hyper["beta"], rows.hyper["l2"]
    offset = beta if is_zero(l2) else _plus(rows.learning_rate * l2, beta)
    return z, n, _plus(root, offset)


def _ftrl(rows: Rows) -> list[Tensor]:
    l2 = rows.hyper["l2"]
    doubled = l2 if is_zero(l2) else 2.0 * l2
    return _monolith_ftrl(rows._replace(hyper={**rows.hyper, "l2": doubled}))


def _monolith_ftrl(rows: Rows) -> list[Tensor]:
    z, n, divisor = _ftrl_state(rows)
    l1 = rows.hyper["l1"]
    # 0 where abs(z) <= l1, else -(z - sign(z) * l1).
    kept = -z if is_zero(l1) else tf.maximum(tf.minimum(z, l1), -l1) - z
    return [rows.learning_rate * kept / divisor, z, n]


def _group_ftrl(rows: Rows) -> list[Tensor]:
    z, n, divisor = _ftrl_state(rows)
    l1, rate = rows.hyper["l1"], rows.learning_rate
    if not is_zero(l1):
        bound = l1 * tf.sqrt(tf.cast(tf.shape(z)[-1], tf.float32))
        rate *= tf.maximum(1.0 - tf.math.divide_no_nan(bound, _row_norm(z)), 0.0)
    return [rate * -z / divisor, z, n]


def _lion(rows: Rows) -> list[Tensor]:
    (m,) = rows.state
    beta_1, beta_2 = rows.hyper["beta_1"], rows.hyper["beta_2"]
    c = beta_1 * m + (1.0 - beta_1) * rows.gradients
    m = beta_2 * m + (1.0 - beta_2) * rows.gradients
    return [rows.weights - rows.learning_rate * tf.sign(c), m]


def _batch_softmax(rows: Rows) -> list[Tensor]:
    (last_step,) = rows.state
    step = tf.cast(rows.step, tf.float32)
    interval = step - last_step  # [n, 1]
    weights = rows.weights + rows.learning_rate * (interval - rows.weights)
    return [weights, tf.zeros_like(last_step) + step]


UPDATES: dict[str, Callable[[Rows], list[Tensor]]] = {
    "sgd": _sgd,
    "adagrad": _adagrad,
    "rowwise_adagrad": _rowwise_adagrad,
    "group_adagrad": _group_adagrad,
    "adadelta": _adadelta,
    "adam": _adam,
    "amsgrad": _amsgrad,
    "momentum": _momentum,
    "momentum_nesterov": _momentum_nesterov,
    "moving_average": _moving_average,
    "rmsprop": _rmsprop,
    "rmsprop_v2": _rmsprop_v2,
    "ftrl": _ftrl,
    "group_ftrl": _group_ftrl,
    "lion": _lion,
    "monolith_adagrad": _monolith_adagrad,
    "monolith_adadelta": _adadelta,
    "monolith_adam": _monolith_adam,
    "monolith_rmsprop": _monolith_rmsprop,
    "monolith_ftrl": _monolith_ftrl,
    "batch_softmax": _batch_softmax,
}
