"""Values of a group's rows: initial values, and updates by gradients."""

import math
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf import schedules
from monolith_tf.embedding import initializers
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.optimizers import rules as optimizers
from monolith_tf.types import Tensor


def initial_rows(group: Group, ids: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Returns rows of new ids, which depend on seed, table, slice and id only.

    Args:
      group: The layout of the rows.
      ids: `[n]`, int64.
      keys: One for each slice and table, from `group_kind.slice_keys`.

    Returns:
      Weights, `[n, group.dim]`, and optimizer state, `[n, group.state_dim]`.
    """
    weights = [
        _initial_weights(group, place, ids, keys[place])
        for place in range(len(group.parts))
    ]
    state = [
        _initial_state(group, place, ids)
        for place, part in enumerate(group.parts)
        if part.state_dims
    ]
    return _joined(weights), _joined(state) if state else tf.zeros([tf.size(ids), 0])


def _initial_weights(group: Group, place: int, ids: Tensor, keys: Tensor) -> Tensor:
    """Returns the weights of one slice, `[n, dim]`."""
    dim = group.parts[place].dim
    specs = [table.row_slices()[place].initializer for table in group.tables]
    keys = keys[0] if len(specs) == 1 else tf.gather(keys, group.table_of(ids))
    by_table = [initializers.parameters(spec) for spec in specs]
    parameters = {
        name: group.per_row([values[name] for values in by_table], ids, tf.float32)
        for name in by_table[0]
    }
    kinds = [initializers.kind(spec) for spec in specs]
    values = initializers.draw(kinds[0], parameters, dim, ids, keys)
    for kind in dict.fromkeys(kinds[1:]):
        if kind != kinds[0]:
            is_kind = group.per_row([other == kind for other in kinds], ids, tf.bool)
            drawn = initializers.draw(kind, parameters, dim, ids, keys)
            values = tf.where(is_kind, drawn, values)
    return values


def _initial_state(group: Group, place: int, ids: Tensor) -> Tensor:
    """Returns the state of one slice, `[n, state_dim]`."""
    by_table = [
        optimizers.initial_parts(table.row_slices()[place].optimizer)
        for table in group.tables
    ]
    return _joined(
        [
            tf.zeros([tf.size(ids), dim]) + group.per_row(values, ids, tf.float32)
            for values, dim in zip(
                zip(*by_table, strict=True), group.parts[place].state_dims, strict=True
            )
        ]
    )


def updated_rows(
    group: Group,
    weights: Tensor,
    state: Tensor | None,
    ids: Tensor,
    gradients: Tensor,
    step: Tensor,
    rate_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Applies every slice's optimizer to rows.

    Args:
      group: The layout of the rows.
      weights: `[n, group.dim]`.
      state: `[n, group.state_dim]`; None if there is none.
      ids: The rows' ids, which select the hyperparameters if tables differ.
      gradients: `[n, group.dim]`, summed over the batch.
      step: The global step, an integer scalar.
      rate_scale: Factor for all learning rates; None means 1.

    Returns:
      New weights and state.
    """
    dims = [part.dim for part in group.parts]
    state_dims = [dim for part in group.parts for dim in part.state_dims]
    weights_of = _split(weights, dims)
    gradients_of = _split(gradients, dims)
    states = _split(state, state_dims) if state_dims else []
    new_weights: list[Tensor] = []
    new_states: list[Tensor] = []
    for place, part in enumerate(group.parts):
        start = len(new_states)
        rate = _learning_rate(group, place, ids, step)
        gradient = _clipped(group, place, gradients_of[place], ids)
        new = optimizers.update(
            part.kind,
            [weights_of[place], *states[start : start + len(part.state_dims)]],
            _penalized(group, place, gradient, weights_of[place], ids),
            rate if rate_scale is None else rate_scale * rate,
            _hyperparameters(group, place, ids),
            step,
        )
        new_weights.append(new[0])
        new_states += new[1:]
    return _joined(new_weights), _joined(new_states) if new_states else None


def _split(columns: Tensor, dims: Sequence[int | Tensor]) -> list[Tensor]:
    if len(dims) == 1:
        return [columns]
    return tf.split(columns, tf.stack(dims), axis=1, num=len(dims))


def _joined(columns: Sequence[Tensor]) -> Tensor:
    return tf.concat(columns, axis=1) if len(columns) > 1 else columns[0]


def _clipped(group: Group, place: int, gradients: Tensor, ids: Tensor) -> Tensor:
    norms = [table.row_slices()[place].clip_norm for table in group.tables]
    if all(norm is None for norm in norms):
        return gradients
    limit = group.per_row(
        [math.inf if norm is None else norm for norm in norms], ids, tf.float32
    )
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradients), axis=1, keepdims=True))
    return gradients * tf.where(norm > limit, limit / norm, 1.0)


def _penalized(
    group: Group, place: int, gradients: Tensor, weights: Tensor, ids: Tensor
) -> Tensor:
    l2 = [table.row_slices()[place].l2 for table in group.tables]
    if not any(l2):
        return gradients
    return gradients + group.per_row(l2, ids, tf.float32) * weights


def _learning_rate(group: Group, place: int, ids: Tensor, step: Tensor) -> Tensor:
    specs = [
        table.row_slices()[place].optimizer.learning_rate for table in group.tables
    ]
    if all(spec == specs[0] for spec in specs):
        return schedules.rate_at(specs[0], step)
    distinct = list(dict.fromkeys(specs))
    rates = tf.stack([schedules.rate_at(spec, step) for spec in distinct])
    of_table = tf.constant([distinct.index(spec) for spec in specs], tf.int32)
    return tf.gather(rates, tf.gather(of_table, group.table_of(ids)))[:, tf.newaxis]


def _hyperparameters(group: Group, place: int, ids: Tensor) -> dict[str, float]:
    by_table = [
        optimizers.hyperparameters(table.row_slices()[place].optimizer)
        for table in group.tables
    ]
    return {
        name: group.per_row([hyper[name] for hyper in by_table], ids, tf.float32)
        for name in by_table[0]
    }
