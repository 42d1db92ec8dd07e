"""Functions that XLA compiles, with gradients of their own, for any batch size."""

import functools
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import tensorflow as tf

_STEPS = 8
_ONE_ORDER = (
    "The fused form has gradients of the first order only. Use `fused=False` for "
    "gradients of gradients."
)

Tensors = list[tf.Tensor]


class Definition(Protocol):
    """A function of tensors with a batch axis and of weights, and its gradients.

    Values of one definition are hashable, and equal where they compute the same. Both
    methods are traced by TensorFlow; half precision reaches them as float32.
    """

    def __hash__(self) -> int: ...

    @property
    def block_rows(self) -> int:
        """The batch sizes above this power of two are its multiples."""

    def forward(self, batched: Tensors, weights: Tensors) -> tuple[Tensors, Tensors]:
        """Returns the outputs, with a batch axis, and what `backward` needs of them."""

    def backward(
        self, batched: Tensors, weights: Tensors, saved: Tensors, upstream: Tensors
    ) -> tuple[Tensors, Tensors]:
        """Returns the gradients by `batched` and by `weights`."""


def call(
    definition: Definition, batched: Sequence[Any], weights: Sequence[Any]
) -> Tensors:
    """Computes a definition on the given tensors.

    The batch is filled up with zeros to one of few sizes, so that batches of many sizes
    need few compilations; see `padded_size`. Gradients exist to the first order; to ask
    for the second raises `LookupError`.

    Args:
      definition: What to compute.
      batched: Tensors of one type whose first axis is the batch.
      weights: Tensors.

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
    )
    outputs: Tensors = function(batched, weights)
    return outputs


def padded_size(size: Any, block: int) -> Any:
    """Returns the batch size to which a batch is filled up.

    Up to `block` these are the powers of two, above it multiples of `block`, at most 8
    between one power of two and the next.

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


@functools.cache
def _function(
    definition: Definition,
    batched: tuple[tf.TensorSpec, ...],
    weights: tuple[tf.TensorSpec, ...],
) -> Any:
    """Returns `_padded` for tensors with these specs as a function that is traced once.

    Inside of a function, a tape does not follow the compiled one and keep all that it
    computes, but sees what the custom gradient leaves.
    """
    return tf.function(
        functools.partial(_padded, definition),
        input_signature=[list(batched), list(weights)],
        autograph=False,
    )


def _padded(definition: Definition, batched: Tensors, weights: Tensors) -> Tensors:
    size = batched[0].shape[0]
    size = tf.shape(batched[0])[0] if size is None else int(size)
    rows = padded_size(size, definition.block_rows)
    run = _compiled(definition, len(batched))
    if isinstance(size, int) and size == rows:
        return run(*batched, *weights)
    # Neither copies where the batch has that size.
    filled = [
        tf.pad(x, [[0, rows - size], *[[0, 0]] * (x.shape.rank - 1)]) for x in batched
    ]
    outputs = run(*filled, *weights)
    return [tf.slice(y, [0] * y.shape.rank, [size, *y.shape[1:]]) for y in outputs]


@functools.cache
def _compiled(definition: Definition, num_batched: int) -> Any:
    """Returns the definition as a function of tensors of a compiled size."""
    forward = tf.function(
        functools.partial(_forward, definition), autograph=False, jit_compile=True
    )
    backward = tf.function(
        functools.partial(_backward, definition), autograph=False, jit_compile=True
    )

    @tf.custom_gradient
    def run(*tensors: tf.Tensor) -> tuple[Tensors, Any]:
        args = list(tensors[:num_batched]), list(tensors[num_batched:])
        outputs, saved = forward(*args)
        # A tape that might be asked for the second order looks no further.
        saved = [tf.stop_gradient(tensor) for tensor in saved]

        def grad(*upstream: tf.Tensor) -> list[tf.Tensor]:
            of_batched, of_weights = backward(*args, saved, list(upstream))
            return [
                tf.raw_ops.PreventGradient(input=gradient, message=_ONE_ORDER)
                for gradient in of_batched + of_weights
            ]

        return outputs, grad

    return run


def _forward(
    definition: Definition, batched: Tensors, weights: Tensors
) -> tuple[Tensors, Tensors]:
    outputs, saved = definition.forward(_wide(batched), _wide(weights))
    return [tf.cast(y, batched[0].dtype) for y in outputs], saved


def _backward(
    definition: Definition,
    batched: Tensors,
    weights: Tensors,
    saved: Tensors,
    upstream: Tensors,
) -> tuple[Tensors, Tensors]:
    gradients = definition.backward(
        _wide(batched), _wide(weights), saved, _wide(upstream)
    )
    return tf.nest.map_structure(
        lambda gradient, like: tf.cast(gradient, like.dtype),
        gradients,
        (batched, weights),
    )


def _wide(tensors: Tensors) -> Tensors:
    """Returns half precision as float32."""
    return [tf.cast(t, tf.float32) if t.dtype.size < 4 else t for t in tensors]
