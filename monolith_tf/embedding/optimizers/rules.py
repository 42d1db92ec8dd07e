"""Row optimizers: the state of a row, and its update from a gradient.

A row is stored as its weights followed by its optimizer's state, part by part; see
`row_state`. The specs, in `specs`, describe the formulas and the hyperparameters.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.embedding.optimizers.row_state import STATE
from monolith_tf.embedding.optimizers.row_state import part_dims
from monolith_tf.embedding.optimizers.specs import RowOptimizerSpec
from monolith_tf.embedding.optimizers.update_rules import UPDATES
from monolith_tf.embedding.optimizers.update_rules import Hyperparameters
from monolith_tf.embedding.optimizers.update_rules import Rows
from monolith_tf.embedding.optimizers.update_rules import is_zero
from monolith_tf.types import Tensor


def kind(spec: RowOptimizerSpec) -> str:
    """Returns the update rule; slices that share it can share a physical table."""
    return spec.kind


def have_like_state(kind: str, other: str) -> bool:
    """Returns whether one update rule can continue with the state of the other.

    An optimizer of Keras and its form in the original Monolith can.
    """
    return kind.removeprefix("monolith_") == other.removeprefix("monolith_")


def hyperparameters(spec: RowOptimizerSpec) -> dict[str, float]:
    """Returns the numbers of a rule that may differ by row, without learning rate."""
    return {
        field.name: float(getattr(spec, field.name))
        for field in dataclasses.fields(spec)
        if field.type is float and field.name != "initial_accumulator_value"
    }


def initial_parts(spec: RowOptimizerSpec) -> list[float]:
    """Returns a new row's state, one value per part."""
    return [
        float(getattr(spec, part.initial_field, part.initial))
        for part in STATE[kind(spec)]
    ]


def initial_state(spec: RowOptimizerSpec, dim: int) -> list[float]:
    """Returns a new row's state, one value per state column."""
    widths = part_dims(kind(spec), dim)[1:]
    parts = zip(initial_parts(spec), widths, strict=True)
    return [value for value, width in parts for _ in range(width)]


def update(
    kind: str,
    parts: Sequence[Tensor],
    gradients: Tensor,
    learning_rate: float | Tensor,
    hyper: Hyperparameters,
    step: Tensor,
) -> list[Tensor]:
    """Updates rows that are already split into their parts.

    A caller whose rows hold several slices splits them once, by the `part_dims` of all
    slices, and concatenates once.

    Args:
      kind: An update rule, from `kind`.
      parts: Weights `[n, dim]`, then the state's parts, of the widths in `part_dims`.
      gradients: `[n, dim]`, summed over the batch.
      learning_rate: A scalar, or `[n, 1]`.
      hyper: Those of `hyperparameters`, each a number or `[n, 1]`. The number 0
        omits its operations.
      step: The global step, an integer scalar. Kept as float32 by "batch_softmax", so
        exact below 2^24.

    Returns:
      The new parts, in the same order.
    """
    weights, *state = parts
    # As tensors, so that `1 - beta` is computed in float32 for numbers and columns.
    hyper = {
        name: value if is_zero(value) else tf.convert_to_tensor(value, tf.float32)
        for name, value in hyper.items()
    }
    learning_rate = tf.convert_to_tensor(learning_rate, tf.float32)
    decay = hyper["weight_decay"]
    if not is_zero(decay):
        weights = weights - learning_rate * decay * weights
    rows = Rows(weights, state, gradients, learning_rate, hyper, step)
    return UPDATES[kind](rows)


def apply(
    kind: str,
    weights: Tensor,
    state: Tensor,
    gradients: Tensor,
    learning_rate: float | Tensor,
    hyper: Hyperparameters,
    step: Tensor,
) -> tuple[Tensor, Tensor]:
    """Updates rows as `update`, for a state in one tensor, `[n, state_dim]`."""
    dims = part_dims(kind, weights.shape[-1])[1:]
    parts = tf.split(state, dims, axis=1) if len(dims) > 1 else [state][: len(dims)]
    weights, *parts = update(
        kind, [weights, *parts], gradients, learning_rate, hyper, step
    )
    if len(parts) > 1:
        state = tf.concat(parts, axis=1)
    elif parts:
        state = parts[0]
    return weights, state
