"""Custom gradients that live no longer than their graph."""

import functools
import types
from collections.abc import Callable
from collections.abc import Collection
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record  # No public API records on a tape.
from tensorflow.python.framework import ops

from monolith_tf.types import Nest
from monolith_tf.types import Tensor


def custom_gradient(function: Callable[..., Nest]) -> Callable[..., Nest]:
    """`tf.custom_gradient`, without its memory leak.

    In a graph, `tf.custom_gradient` adds every call to a registry of the process, which
    keeps the graph and all variables that it captured. Here the operation itself has
    the gradient.

    Args:
      function: Takes tensors; returns a tensor or a sequence of them, and the function
        from their gradients to those of the arguments. It may read trainable variables
        only through its arguments.
    """

    @functools.wraps(function)
    @tf.autograph.experimental.do_not_convert
    def decorated(*arguments: Tensor) -> Nest:
        if tf.executing_eagerly():
            return tf.custom_gradient(function)(*arguments)
        return _in_graph(function, [tf.convert_to_tensor(value) for value in arguments])

    return decorated


def _in_graph(function: Callable[..., Nest], arguments: list[Tensor]) -> Nest:
    values, gradient_of = function(*arguments)
    flat = tf.nest.flatten(values)

    @tf.autograph.experimental.do_not_convert
    def gradient(*upstream: Tensor) -> list[Tensor | None]:
        found = gradient_of(*upstream[: len(flat)])
        found = list(found) if isinstance(found, list | tuple) else [found]
        return [None] * len(flat) + found

    inputs = [*flat, *arguments]
    graph = tf.compat.v1.get_default_graph()
    # The override is the gradient for `tf.gradients`; the recorded operation is the one
    # for tapes. Neither is in a registry. `arguments` pass through the operation as
    # well, so that it can return their gradients.
    by_operation = {"IdentityN": lambda operation, *upstream: gradient(*upstream)}
    with graph._override_gradient_function(by_operation), record.stop_recording():
        outputs = tf.identity_n(inputs)
    record.record_operation(function.__name__, outputs, inputs, gradient)
    return tf.nest.pack_sequence_as(values, outputs[: len(flat)])


def forget_gradients(graphs: Collection[tf.Graph]) -> None:
    """Removes entries that other code made for graphs from TensorFlow's registry.

    Keras' optimizers make one for every `fit`, in `ReplicaContext.all_reduce`.

    Args:
      graphs: Graphs that no longer need gradients.
    """
    registry = ops.gradient_registry._registry
    for name, entry in list(registry.items()) if graphs else ():
        if name.startswith("CustomGradient-"):
            results = _cells(_cells(entry["type"]).get("tape_grad_fn")).get("result")
            owners = (getattr(t, "graph", None) for t in tf.nest.flatten(results))
            if any(owner in graphs for owner in owners if owner is not None):
                registry.pop(name, None)


def _cells(function: types.FunctionType | None) -> dict[str, Any]:
    """Returns the variables that a function captures from its outer function."""
    if function is None or function.__closure__ is None:
        return {}
    names = function.__code__.co_freevars
    values = (cell.cell_contents for cell in function.__closure__)
    return dict(zip(names, values, strict=True))
