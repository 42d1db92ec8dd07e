"""Selects the plain or the fused form of a computation."""

import contextlib
import math
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf import saving
from monolith_tf.types import Tensor

# The size in bytes of the plain form's largest tensor from which XLA was measured to be
# no slower, by operation and device. Cases without an entry were not seen to win: GPUs
# were not measured, and in half precision TensorFlow's own matrix products are faster
# on a CPU than XLA's. Measured by `scripts/bench fused --size crossovers` (CIN) and
# `--size grid --only senet`, see docs/fused.md.
_CROSSOVERS = {
    ("cin_two_layers", "CPU"): 4 * 2**20,
    ("cin", "CPU"): 32 * 2**20,  # equally fast from there, in a fraction of the memory
    ("senet", "CPU"): 4 * 2**20,
}
_USUAL_BATCH = 1024  # used if the batch size is unknown

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
    """Selects plain forms for what this thread traces, regardless of `fused`.

    A compiled function cannot run without XLA, for example in a model server. Exports
    of this package are traced in this scope, and Keras saves plain forms too. If you
    call your own `tf.function` before saving it, it keeps the forms that it was traced
    with: trace it in this scope.
    """
    before = is_exporting()
    _state.exporting = True
    try:
        yield
    finally:
        _state.exporting = before


def is_exporting() -> bool:
    """Returns whether this thread is inside `exporting`."""
    return getattr(_state, "exporting", False)


def select(
    fused: bool | str,
    *,
    plain: Callable[..., Tensor],
    compiled: Callable[..., Tensor],
    wins: Callable[[], bool],
) -> Callable[..., Tensor]:
    """Returns the function that computes a result.

    Args:
      fused: "auto", True or False.
      plain: The plain form, of ordinary TensorFlow operations.
      compiled: The fused form.
      wins: Returns for "auto" whether the fused form is faster here.
    """
    check(fused)
    if fused is False or is_exporting() or saving.is_saving():
        return plain
    return compiled if fused is True or wins() else plain


def wins(operation: str, shape: Sequence[int | None], dtype: tf.DType) -> bool:
    """Returns whether the fused form of an operation is no slower than the plain one.

    Args:
      operation: A name in the table above.
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
    """Returns the bytes from which XLA was measured to be no slower, or None."""
    device = "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
    return _CROSSOVERS.get((operation, device))
