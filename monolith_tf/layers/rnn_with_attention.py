"""Runs a cell over a sequence, with an attention score for every step."""

from collections.abc import Callable

import tensorflow as tf

from monolith_tf.layers.agru_cell import AGRUCell
from monolith_tf.layers.parts import modes


def static_rnn_with_attention(
    cell: AGRUCell,
    inputs: tf.Tensor,
    att_scores: tf.Tensor,
    init_state: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs an attention cell over a sequence, unrolled step by step.

    Args:
      cell: A cell of width `units`.
      inputs: `[batch, time, dim]`, `time` known.
      att_scores: `[batch, time]`.
      init_state: `[batch, units]`; None is zeros.

    Returns:
      The states `[batch, time, units]`, and the last state, which is `init_state` if
      there are no steps.

    Raises:
      ValueError: If `time` is unknown.

    Example:
      >>> outputs, state = static_rnn_with_attention(
      ...     AGRUCell(3), tf.ones([8, 5, 4]), tf.ones([8, 5]), tf.zeros([8, 3]))
      >>> outputs.shape
      TensorShape([8, 5, 3])
    """
    time = inputs.shape[1]
    if time is None:
        raise ValueError(
            "`inputs` must have a known number of steps to be unrolled. "
            f"Received: inputs.shape={inputs.shape}. "
            "Use `dynamic_rnn_with_attention`."
        )
    _build(cell, inputs)
    init_state = _start(cell, inputs, init_state)
    projected = cell.project(inputs)  # [batch, time, 3 * units]
    states = [init_state]
    for t in range(time):
        states.append(cell.step(projected[:, t], states[-1], att_scores[:, t : t + 1]))
    batch, units = tf.shape(init_state)[0], init_state.shape[1]
    outputs = tf.reshape(tf.stack(states, 1)[:, 1:], [batch, time, units])
    return outputs, states[-1]


def dynamic_rnn_with_attention(
    cell: AGRUCell,
    inputs: tf.Tensor,
    att_scores: tf.Tensor,
    init_state: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Runs an attention cell over a sequence of any length, in a loop.

    Args:
      cell: A cell of width `units`.
      inputs: `[batch, time, dim]`.
      att_scores: `[batch, time]`.
      init_state: `[batch, units]`; None is zeros.

    Returns:
      The states `[batch, time, units]`, and the last state, which is `init_state` if
      there are no steps.

    Example:
      >>> outputs, state = dynamic_rnn_with_attention(
      ...     AGRUCell(3), tf.ones([8, 5, 4]), tf.ones([8, 5]), tf.zeros([8, 3]))
      >>> state.shape
      TensorShape([8, 3])
    """
    _build(cell, inputs)
    init_state = _start(cell, inputs, init_state)
    steps = (swap_batch_and_time(inputs), swap_batch_and_time(att_scores))
    states = run_cell(cell, *steps, init_state)
    return swap_batch_and_time(states), last_state(states, init_state)


def run_cell(
    cell: AGRUCell, inputs: tf.Tensor, scores: tf.Tensor, start: tf.Tensor
) -> tf.Tensor:
    """Returns the states of a built cell, `[time, batch, units]`.

    Args:
      cell: A built cell.
      inputs: `[time, batch, dim]`.
      scores: `[time, batch]`.
      start: `[batch, units]`; its type is that of the states.
    """
    return scan(
        lambda state, step: cell.step(step[0], state, step[1]),
        (cell.project(inputs), scores[:, :, tf.newaxis]),
        start,
    )


def last_state(states: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the last of the states `[time, batch, units]`, or `start` if none."""
    return tf.concat([start[tf.newaxis], states], axis=0)[-1]


def scan(
    step: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    steps: tf.Tensor,
    start: tf.Tensor,
) -> tf.Tensor:
    """Returns the states after each step, `[time, *start.shape]`.

    Args:
      step: Function of a state and one step's nest that returns the next state.
      steps: Nest of tensors, time first.
      start: The state before the first step.
    """
    first = tf.nest.flatten(steps)[0]
    time = first.shape[0] if first.shape[0] is not None else tf.shape(first)[0]
    # An empty loop cannot be compiled, and does not know the shape of a state.
    return modes.choose(
        time > 0,
        lambda: tf.scan(step, steps, initializer=start),
        lambda: tf.zeros([0, *tf.unstack(tf.shape(start))], start.dtype),
    )


def swap_batch_and_time(tensor: tf.Tensor) -> tf.Tensor:
    """Swaps the first two axes."""
    tensor = tf.convert_to_tensor(tensor)
    rank = tensor.shape.rank
    return tf.transpose(tensor, [1, 0, *range(2, rank)])


def _start(cell: AGRUCell, inputs: tf.Tensor, state: tf.Tensor | None) -> tf.Tensor:
    """Returns the first state: `state`, or zeros in the type of the weights."""
    if state is not None:
        return tf.convert_to_tensor(state)
    return tf.zeros([tf.shape(inputs)[0], cell.units], cell.variable_dtype)


def _build(cell: AGRUCell, inputs: tf.Tensor) -> None:
    """Builds the cell outside of a loop, whose body cannot create variables."""
    if not cell.built:
        state = tf.zeros([0, cell.units], inputs.dtype)
        cell([tf.zeros([0, inputs.shape[-1]], inputs.dtype), state])
