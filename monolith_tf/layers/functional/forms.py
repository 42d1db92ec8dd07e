"""The choice between the forms in which one result can be computed."""

import contextlib
import math
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf import saving

# Bytes of the plain form's largest tensor from which on XLA's was measured to be no
# slower, by operation and device. What is not here was not seen to win: a GPU has not
# been measured, and in half precision TensorFlow's own products of matrices are faster
# on a CPU than XLA's. Measured by `scripts/bench fused --size crossovers` (CIN) and
# `--size grid --only senet`, see docs/fused.md.
_CROSSOVERS = {
    ("cin_two_layers", "CPU"): 4 * 2**20,
    ("cin", "CPU"): 32 * 2**20,  # as fast from there on, in a fraction of the memory
    ("senet", "CPU"): 4 * 2**20,
}
_USUAL_BATCH = 1024  # where the batch size is unknown

_state = threading.local()


def check(fused: bool | str) -> bool | str:
    """Returns `fused` if it is a known value; raises `ValueError` otherwise."""
    if fused is not True and fused is not False and fused != "auto":
        raise ValueError(
            f"`fused` must be 'auto', True or False. Received: fused={fused!r}."
        )
    return fused


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Selects plain forms for what this thread traces, whatever is asked for.

    A function that must be compiled cannot run where XLA is off, as in a model server.
    Exports of this package are traced in here. What Keras saves takes plain forms too.
    A `tf.function` of your own that has been called before it is saved keeps the forms
    that it was traced with: trace it in here.
    """
    before = is_exporting()
    _state.exporting = True
    try:
        yield
    finally:
        _state.exporting = before


def is_exporting() -> bool:
    """Says whether this thread is inside `exporting`."""
    return getattr(_state, "exporting", False)


def select(
    fused: bool | str,
    *,
    plain: Callable[..., Any],
    compiled: Callable[..., Any],
    wins: Callable[[], bool],
) -> Callable[..., Any]:
    """Returns the function that computes a result.

    Args:
      fused: "auto", True or False.
      plain: The plain form, of ordinary TensorFlow operations.
      compiled: The fused form.
      wins: Says for "auto" whether the fused form is the faster one here.
    """
    check(fused)
    if fused is False or is_exporting() or saving.is_saving():
        return plain
    return compiled if fused is True or wins() else plain


def wins(operation: str, shape: Sequence[int | None], dtype: tf.DType) -> bool:
    """Says whether the fused form of an operation is no slower than the plain one.

    Args:
      operation: A name of the table above.
      shape: Shape of the plain form's largest tensor, batch first.
      dtype: Its type.
    """
    least = crossover(operation)
    dtype = tf.as_dtype(dtype)
    if least is None or dtype.size < 4:
        return False
    sizes = [_USUAL_BATCH if size is None else size for size in shape]
    return math.prod(sizes) * int(dtype.size) >= least


def crossover(operation: str) -> int | None:
    """Returns the bytes from which on XLA was measured to be no slower, if it was."""
    device = "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
    return _CROSSOVERS.get((operation, device))
