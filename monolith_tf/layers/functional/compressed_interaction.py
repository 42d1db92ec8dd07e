"""The compressed interaction network on plain tensors."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf.layers.functional import forms


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

    The last layer has no activation: only its sums are needed, and they follow from the
    products `x @ x0^T`, which are `dim` times fewer.

    Args:
      x0: `[batch, fields, dim]`, the last two known.
      kernels: One of shape `[maps_{l-1} * fields, maps_l]` for each layer, `maps_0`
        being `fields`.
      biases: One of shape `[maps_l]` for each layer.
      activations: One for each layer but the last, called on `[batch, dim, maps_l]`;
        None is linear.
      fused: "auto", True or False; all compute the plain form, the only one so far.

    Returns:
      `[batch, sum of maps]`.
    """
    return forms.select(fused, plain=_plain)(x0, kernels, biases, activations)


def cin_layer(
    x: tf.Tensor,
    x0: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor,
    activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
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

    Returns:
      `[batch, units, dim]`.
    """
    y = _layer(_dim_first(x), _dim_first(x0), kernel, bias, activation)
    return tf.transpose(y, [0, 2, 1])


def cin_pooled_linear(
    x: tf.Tensor, x0: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """Returns the sum over `dim` of a linear `cin_layer` without its maps.

        y = reshape(x @ x0^T) @ kernel + dim * bias

    Args:
      x: `[batch, maps, dim]`.
      x0: `[batch, fields, dim]`.
      kernel: `[maps * fields, units]`.
      bias: `[units]`.

    Returns:
      `[batch, units]`.
    """
    return _pooled(tf.matmul(x, x0, transpose_b=True), x.shape[2], kernel, bias)


def _plain(
    x0: tf.Tensor,
    kernels: Sequence[tf.Tensor],
    biases: Sequence[tf.Tensor],
    activations: Sequence[Any],
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
    return tf.transpose(x, [0, 2, 1])


def _layer(
    x: tf.Tensor, x0: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, activation: Any
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
