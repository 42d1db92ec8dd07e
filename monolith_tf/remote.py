"""Calls Python functions in the processes of parameter servers, from a graph.

A Python function exists only in the process that made it. So each parameter server
first makes one Python function, and publishes its token. A graph calls that function
with the token, on the server's device, and it calls the function that was asked for.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any
from typing import TypeVar

import numpy as np
import tensorflow as tf

from monolith_tf.types import Tensor

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FUNCTIONS: dict[str, Callable[..., Any]] = {}
_PACKAGE = __name__.partition(".")[0]


def function(made: _Function) -> _Function:
    """Registers a function of a module, so that `call` can call it on other machines.

    It receives NumPy arrays, and bytes for scalars of dtype string. It returns a value
    that NumPy makes an array of, or bytes. Calls may run at the same time.
    """
    _FUNCTIONS[_name(made)] = made
    return made


def call(
    wanted: Callable[..., Any],
    *arguments: object,
    token: str = "",
    dtype: tf.DType = tf.string,
) -> Tensor:
    """Calls a function in the process of the present device.

    Call it eagerly or in a graph, under a `tf.device` of the server.

    Args:
      wanted: A function that is registered by `function`.
      *arguments: Tensors.
      token: The server's token; by default that of this process.
      dtype: Of the function's result.

    Returns:
      The function's result. Its shape is not known.

    Raises:
      tf.errors.OpError: If the function fails; the message has the function's own.
    """
    tensors = [tf.convert_to_tensor(argument) for argument in arguments]
    (result,) = tf.raw_ops.PyFunc(
        input=[tf.constant(_name(wanted)), *tensors],
        token=token or local_token(),
        Tout=[dtype],
    )
    return result


def local_token() -> str:
    """Returns the token of this process; makes the function at the first call.

    All servers of a job must have the same token. Tokens are numbered, so a server
    calls this before anything else makes a Python function.
    """
    return _entry()[0]


@functools.cache
def _entry() -> tuple[str, tf.Graph]:
    """Returns the token, and the graph that keeps the function alive."""
    graph = tf.Graph()
    with graph.as_default():
        made = tf.numpy_function(_run, [tf.constant("")], tf.string, stateful=True)
    token: bytes = made.op.get_attr("token")
    return token.decode(), graph


@tf.autograph.experimental.do_not_convert
def _run(name: bytes, *arguments: np.ndarray) -> Any:
    return _registered(name.decode())(*arguments)


def _registered(name: str) -> Callable[..., Any]:
    module, _, _ = name.partition(":")
    if name not in _FUNCTIONS and module.partition(".")[0] == _PACKAGE:
        importlib.import_module(module)
    if name not in _FUNCTIONS:
        raise ValueError(
            f"`wanted` must be registered by `remote.function`. Received: {name}."
        )
    return _FUNCTIONS[name]


def _name(made: Callable[..., Any]) -> str:
    return f"{made.__module__}:{made.__qualname__}"
