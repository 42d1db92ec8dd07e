"""XLA-compiled functions with custom gradients, for any batch size."""

import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import tensorflow as tf

from monolith_tf import connected
from monolith_tf.gradients import custom_gradient
from monolith_tf.types import Nest
from monolith_tf.types import Tensor

_STEPS = 8
_ONE_ORDER = (
    "The fused form has only first-order gradients. Use `fused=False` for "
    "gradients of gradients."
)

Tensors = list[tf.Tensor]


class Definition(Protocol):
    """A function of tensors with a batch axis and of weights, and its gradients.

    Definitions are hashable, and equal if they compute the same. TensorFlow traces both
    methods; they receive half precision as float32.
    """

    def __hash__(self) -> int: ...

    @property
    def block_rows(self) -> int:
        """A power of two; larger batch sizes are multiples of it."""

    def forward(self, batched: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        """Returns the outputs, with a batch axis, and what to save for `backward`."""

    def backward(
        self, batched: Tensors, weights: Tensors, saved: Tensors, upstream: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Returns the gradients by `batched` and by `weights`."""


def call(
    definition: Definition,
    batched: Sequence[Tensor],
    weights: Sequence[Tensor],
    min_rows: int = 0,
) -> Tensors:
    """Computes a definition.

    The batch is padded with zeros to one of few sizes, so that batches of many sizes
    need few compilations; see `padded_size`. Only first-order gradients exist; a
    second-order gradient raises `LookupError`.

    Args:
      definition: What to compute.
      batched: Tensors of one type whose first axis is the batch.
      weights: Tensors.
      min_rows: Smaller batches are not compiled: TensorFlow runs the operations of the
        definition one by one, which costs less than starting a compiled function.

    Returns:
      The outputs, of the type of `batched`.
    """
    batched = [tf.convert_to_tensor(x) for x in batched]
    weights = [tf.convert_to_tensor(w) for w in weights]
    size = None if tf.executing_eagerly() else batched[0].shape[0]
    function = _function(
        definition,
        tuple(tf.TensorSpec([size, *x.shape[1:]], x.dtype) for x in batched),
        tuple(tf.TensorSpec(w.shape, w.dtype) for w in weights),
        min_rows,
    )
    outputs: Tensors = function(batched, weights)
    return outputs


def padded_size(size: Tensor, block: int) -> Tensor:
    """Returns the size to which a batch is padded.

    Sizes up to `block` are powers of two; larger sizes are multiples of `block`, at
    most 8 between one power of two and the next.

    Args:
      size: The batch size, an integer or an int32 scalar.
      block: A power of two.

    Returns:
      At least 1; an integer for an integer, otherwise a scalar.
    """
    if isinstance(size, int):
        power = 1 << max(size - 1, 0).bit_length()
        step = min(power, max(power // (2 * _STEPS), block))
        return max((size + step - 1) // step * step, 1)
    last = tf.maximum(size - 1, 0)
    for shift in (1, 2, 4, 8, 16):  # sets all bits below the highest one
        last = tf.bitwise.bitwise_or(last, tf.bitwise.right_shift(last, shift))
    power = last + 1
    step = tf.minimum(power, tf.maximum(power // (2 * _STEPS), block))
    return tf.maximum((size + step - 1) // step * step, 1)


@connected.cached
def _function(
    definition: Definition,
    batched: tuple[tf.TensorSpec, ...],
    weights: tuple[tf.TensorSpec, ...],
    min_rows: int,
) -> Nest:
    """Returns `_call` as a function that is traced once for tensors with these specs.

    Inside this function, a tape does not record the compiled one, which would keep all
    its intermediate values. It records only the custom gradient.
    """
    return tf.function(
        functools.partial(_call, definition, min_rows),
        input_signature=[list(batched), list(weights)],
        autograph=False,
    )


def _call(
    definition: Definition, min_rows: int, batched: Tensors, weights: Tensors
) -> Tensors:
    """Computes the outputs, and gradients if a tape needs them."""
    forward, backward = (
        functools.partial(_by_size, definition, function, min_rows)
        for function in (_forward, _backward)
    )

    @custom_gradient
    def run(*tensors: tf.Tensor) -> tuple[Tensors, Nest]:
        outputs, saved = forward(batched, weights)
        # A tape for second-order gradients stops here.
        saved = [tf.stop_gradient(tensor) for tensor in saved]

        def grad(*upstream: tf.Tensor) -> list[tf.Tensor]:
            gradients = backward((batched, list(upstream)), (weights, saved))
            return [
                tf.raw_ops.PreventGradient(input=gradient, message=_ONE_ORDER)
                for gradient in tf.nest.flatten(gradients)
            ]

        return outputs, grad

    outputs: Tensors = run(*batched, *weights)
    return outputs


def _by_size(
    definition: Definition,
    function: Callable[..., tuple[Nest, Nest]],
    min_rows: int,
    by_row: Nest,
    others: Nest,
) -> tuple[Nest, Nest]:
    """Applies a function to tensors with a batch axis and to others.

    It uses XLA, except for batches of fewer than `min_rows`.
    """
    first = tf.nest.flatten(by_row)[0]
    size = tf.shape(first)[0] if first.shape[0] is None else int(first.shape[0])
    plain = functools.partial(function, definition, by_row, others)
    padded = functools.partial(_padded, definition, function, size, by_row, others)
    if min_rows == 0:
        return padded()
    if isinstance(size, int):
        return plain() if size < min_rows else padded()
    found: tuple[Nest, Nest] = tf.cond(size < min_rows, plain, padded)
    return found


def _padded(
    definition: Definition,
    function: Callable[..., tuple[Nest, Nest]],
    size: Tensor,
    by_row: Nest,
    others: Nest,
) -> tuple[Nest, Nest]:
    """Applies the compiled function to a batch that is padded with zeros."""
    rows = padded_size(size, definition.block_rows)
    compiled = _compiled(definition, function)
    if isinstance(size, int) and size == rows:
        return compiled(by_row, others)
    # Neither op below copies if the batch already has that size.
    filled = tf.nest.map_structure(
        lambda x: tf.pad(x, [[0, rows - size], *[[0, 0]] * (x.shape.rank - 1)]), by_row
    )
    outputs, rest = compiled(filled, others)
    return [
        tf.slice(y, [0] * y.shape.rank, [size, *y.shape[1:]]) for y in outputs
    ], rest


@connected.cached
def _compiled(definition: Definition, function: Callable[..., Any]) -> Any:
    """Returns one of the functions below, for one definition, compiled by XLA."""
    return tf.function(
        functools.partial(function, definition), autograph=False, jit_compile=True
    )


def _forward(
    definition: Definition, batched: Tensors, weights: Tensors
) -> tuple[Tensors, Tensors]:
    outputs, saved = definition.forward(_wide(batched), _wide(weights))
    return [tf.cast(y, batched[0].dtype) for y in outputs], saved


def _backward(
    definition: Definition,
    by_row: tuple[Tensors, Tensors],
    others: tuple[Tensors, Tensors],
) -> tuple[Tensors, Tensors]:
    (batched, upstream), (weights, saved) = by_row, others
    gradients = definition.backward(
        _wide(batched), _wide(weights), saved, _wide(upstream)
    )
    return tf.nest.map_structure(
        lambda gradient, like: tf.cast(gradient, like.dtype),
        gradients,
        (batched, weights),
    )


def _wide(tensors: Tensors) -> Tensors:
    """Casts half precision to float32."""
    return [tf.cast(t, tf.float32) if t.dtype.size < 4 else t for t in tensors]
