"""Gradients of one's own that live no longer than the graph they are part of."""

import functools
import types
from collections.abc import Callable
from collections.abc import Collection
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import record  # Nothing public records on a tape.
from tensorflow.python.framework import ops

from monolith_tf.types import Tensor


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`tf.custom_gradient`, without its leak.

    In a graph that one enters every call in a registry of the process, and with it the
    graph and all variables that the graph captured, for good. Here the operation itself
    has the gradient.

    Args:
      function: Takes tensors; returns a tensor or a sequence of them, and the function
        from their gradients to those of the arguments. It must read no trainable
        variables except by its arguments.
    """

    @functools.wraps(function)
    @tf.autograph.experimental.do_not_convert
    def decorated(*arguments: Any) -> Any:
        if tf.executing_eagerly():
            return tf.custom_gradient(function)(*arguments)
        return _in_graph(function, [tf.convert_to_tensor(value) for value in arguments])

    return decorated


def _in_graph(function: Callable[..., Any], arguments: list[Tensor]) -> Any:
    values, gradient_of = function(*arguments)
    flat = tf.nest.flatten(values)

    @tf.autograph.experimental.do_not_convert
    def gradient(*upstream: Tensor) -> list[Tensor | None]:
        found = gradient_of(*upstream[: len(flat)])
        found = list(found) if isinstance(found, list | tuple) else [found]
        return [None] * len(flat) + found

    inputs = [*flat, *arguments]
    graph = tf.compat.v1.get_default_graph()
    by_operation = {"IdentityN": lambda operation, *upstream: gradient(*upstream)}
    with graph._override_gradient_function(by_operation), record.stop_recording():
        outputs = tf.identity_n(inputs)
    record.record_operation(function.__name__, outputs, inputs, gradient)
    return tf.nest.pack_sequence_as(values, outputs[: len(flat)])


def forget_gradients(graphs: Collection[Any]) -> None:
    """Takes what others entered for graphs out of TensorFlow's registry.

    Keras' optimizers enter one for every `fit`, in `ReplicaContext.all_reduce`.

    Args:
      graphs: Graphs of which no further gradient will be taken.
    """
    registry = ops.gradient_registry._registry
    for name, entry in list(registry.items()) if graphs else ():
        if name.startswith("CustomGradient-"):
            results = _cells(_cells(entry["type"]).get("tape_grad_fn")).get("result")
            owners = (getattr(t, "graph", None) for t in tf.nest.flatten(results))
            if any(owner in graphs for owner in owners if owner is not None):
                registry.pop(name, None)


def _cells(function: types.FunctionType | None) -> dict[str, Any]:
    """Variables that a function has from the one around it."""
    if function is None or function.__closure__ is None:
        return {}
    names = function.__code__.co_freevars
    values = (cell.cell_contents for cell in function.__closure__)
    return dict(zip(names, values, strict=True))
