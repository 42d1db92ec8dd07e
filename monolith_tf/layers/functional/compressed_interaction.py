"""The compressed interaction network on plain tensors."""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.layers.functional import forms
from monolith_tf.layers.functional import fused_cin
from monolith_tf.types import Tensor

# With two layers, the matrix products are as small as the number of fields, where XLA
# is slow: it was faster with 16 fields, and slower with 10. Measured by
# `scripts/bench fused --size crossovers`.
_MIN_FIELDS = 16


def cin(
    x0: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    biases: Sequence[tf.Tensor],
    activations: Sequence[Callable[[tf.Tensor], tf.Tensor] | None],
    *,
    fused: bool | str = "auto",
) -> tf.Tensor:
    """Returns the pooled maps of every layer of a compressed interaction network.

        x_l = activation_l(layer(x_{l-1}, x0, kernel_l, bias_l))    # see `cin_layer`
        y = [sum(x_1, axis=2) | sum(x_2, axis=2) | ...]

    The last layer has no activation: only its sums are needed, and they are linear in
    the products `x @ x0^T`, which are `dim` times fewer.

    Args:
      x0: `[batch, fields, dim]`, the last two known.
      kernels: One of shape `[maps_{l-1} * fields, maps_l]` for each layer, `maps_0`
        being `fields`.
      biases: One of shape `[maps_l]` for each layer.
      activations: One for each layer but the last, called on `[batch, dim, maps_l]`;
        None is linear.
      fused: True compiles the network with XLA and holds the products of one block of
        the batch at a time; False does neither; "auto" is True for networks large
        enough to benefit. The fused form has only first-order gradients.

    Returns:
      `[batch, sum of maps]`.
    """
    form = forms.select(
        fused,
        plain=_plain,
        compiled=fused_cin.cin,
        wins=lambda: _fused_wins(x0, [bias.shape[0] for bias in biases]),
    )
    return form(x0, kernels, biases, activations)


def cin_layer(
    x: tf.Tensor,
    x0: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
    *,
    fused: bool | str = "auto",
) -> tf.Tensor:
    """Returns the maps of one layer of a compressed interaction network.

        y[b, o, d] = activation(
            sum_{h, j} kernel[h * fields + j, o] * x[b, h, d] * x0[b, j, d] + bias[o])

    Args:
      x: `[batch, maps, dim]`, the maps of the layer before.
      x0: `[batch, fields, dim]`, the input of the whole network.
      kernel: `[maps * fields, units]`.
      bias: `[units]`.
      activation: Called on `[batch, dim, units]`; None is linear.
      fused: As for `cin`. If `x` is `x0` itself, the fused form computes every product
        once.

    Returns:
      `[batch, units, dim]`.
    """
    form = forms.select(
        fused,
        plain=_plain_layer,
        compiled=fused_cin.cin_layer,
        wins=lambda: forms.wins("cin", [*x.shape, x0.shape[1]], x.dtype),
    )
    return form(x, x0, kernel, bias, activation)


def cin_pooled_linear(
    x: tf.Tensor,
    x0: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    *,
    fused: bool | str = "auto",
) -> tf.Tensor:
    """Returns the sum over `dim` of a linear `cin_layer`, without computing its maps.

        y = reshape(x @ x0^T) @ kernel + dim * bias

    Args:
      x: `[batch, maps, dim]`.
      x0: `[batch, fields, dim]`.
      kernel: `[maps * fields, units]`.
      bias: `[units]`.
      fused: As for `cin`; "auto" is False, as both forms compute the same products.

    Returns:
      `[batch, units]`.
    """
    form = forms.select(
        fused,
        plain=_plain_pooled_linear,
        compiled=fused_cin.cin_pooled_linear,
        wins=lambda: False,
    )
    return form(x, x0, kernel, bias)


def _fused_wins(x0: tf.Tensor, units: Sequence[int]) -> bool:
    """Returns whether the fused network is no slower; a single layer never benefits."""
    batch, fields, dim = x0.shape
    if len(units) == 1 or (len(units) == 2 and fields < _MIN_FIELDS):
        return False
    maps = max((fields, *units[:-2]))
    operation = "cin_two_layers" if len(units) == 2 else "cin"
    return forms.wins(operation, [batch, dim, maps, fields], x0.dtype)


def _plain_layer(
    x: tf.Tensor,
    x0: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: Callable[[Tensor], Tensor] | None,
) -> tf.Tensor:
    y = _layer(_dim_first(x), _dim_first(x0), kernel, bias, activation)
    return _dim_first(y)


def _plain_pooled_linear(
    x: tf.Tensor, x0: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    return _pooled(tf.matmul(x, x0, transpose_b=True), x.shape[2], kernel, bias)


def _plain(
    x0: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    biases: Sequence[tf.Tensor],
    activations: Sequence[Callable[[Tensor], Tensor] | None],
) -> tf.Tensor:
    """Computes `cin` with all products of a layer in memory, except for the last."""
    first = x = _dim_first(x0)  # [batch, dim, fields], so that a layer is one product
    pooled = []
    for kernel, bias, activation in zip(kernels, biases, activations, strict=False):
        x = _layer(x, first, kernel, bias, activation)  # [batch, dim, maps]
        pooled.append(tf.reduce_sum(x, axis=1))
    gram = tf.matmul(x, first, transpose_a=True)  # [batch, maps, fields]
    pooled.append(_pooled(gram, x0.shape[2], kernels[-1], biases[-1]))
    return tf.concat(pooled, axis=-1)


def _dim_first(x: tf.Tensor) -> tf.Tensor:
    """Swaps the last two axes."""
    return tf.transpose(x, [0, 2, 1])


def _layer(
    x: tf.Tensor,
    x0: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: Callable[[Tensor], Tensor] | None,
) -> tf.Tensor:
    """Computes one layer, `[batch, dim, maps]` to `[batch, dim, units]`."""
    dim, maps, fields = x.shape[1], x.shape[2], x0.shape[2]
    products = x[..., tf.newaxis] * x0[..., tf.newaxis, :]
    y = tf.reshape(products, [-1, maps * fields]) @ kernel + bias
    y = tf.reshape(y, [-1, dim, kernel.shape[1]])
    return y if activation is None else activation(y)


def _pooled(gram: tf.Tensor, dim: int, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Computes `cin_pooled_linear` from the products of maps and fields."""
    flat = tf.reshape(gram, [-1, gram.shape[1] * gram.shape[2]])
    return flat @ kernel + dim * bias
