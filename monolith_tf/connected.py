"""A cache for each cluster that this process connects to."""

import functools
from collections.abc import Callable
from typing import ParamSpec
from typing import TypeVar

from tensorflow.python.eager import context  # No public API names the cluster.

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def cached(make: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """`functools.cache` for makers of `tf.function`s, with one cache per cluster.

    TensorFlow sends a function to the tasks of the cluster when the function is traced.
    Tasks that are connected later do not have it.
    """

    @functools.cache
    def of_cluster(
        cluster: bytes, *args: _Args.args, **kwargs: _Args.kwargs
    ) -> _Result:
        del cluster
        return make(*args, **kwargs)

    @functools.wraps(make)
    def of_present_cluster(*args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
        return of_cluster(_cluster(), *args, **kwargs)  # type: ignore[arg-type]

    return of_present_cluster


def _cluster() -> bytes:
    """Returns a key of the current cluster; b"" if there is none."""
    server = context.context().get_server_def()
    return b"" if server is None else server.SerializeToString(deterministic=True)
