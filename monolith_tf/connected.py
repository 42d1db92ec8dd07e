"""What is kept for the cluster that this process is connected to."""

import functools
from collections.abc import Callable
from typing import ParamSpec
from typing import TypeVar

from tensorflow.python.eager import context  # Nothing public names the cluster.

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def cached(make: Callable[_Args, _Result]) -> Callable[_Args, _Result]:
    """`functools.cache` for what makes functions of graphs: one for each cluster.

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
    """A key of the present cluster; b"" where there is none."""
    server = context.context().get_server_def()
    return b"" if server is None else server.SerializeToString(deterministic=True)
