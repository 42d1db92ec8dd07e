"""Squeeze and excitation of features on plain tensors."""

import tensorflow as tf

from monolith_tf.layers.functional import forms
from monolith_tf.layers.functional import fused_senet
from monolith_tf.types import Tensor


def senet(
    x: Tensor,
    w1: tf.Tensor,
    b1: tf.Tensor,
    w2: tf.Tensor,
    b2: tf.Tensor,
    *,
    fused: bool | str = "auto",
) -> Tensor:
    """Scales every feature by a gate computed from the means of all features.

        squeezed[:, i] = mean(x[:, i], axis=-1)                    # [batch, features]
        gates = sigmoid(relu(squeezed @ w1 + b1) @ w2 + b2)        # [batch, features]
        y[:, i] = gates[:, i] * x[:, i]

    Args:
      x: `[batch, features, dim]`, or a list of features `[batch, dim_i]`.
      w1: `[features, units]`.
      b1: `[units]`.
      w2: `[units, features]`.
      b2: `[features]`.
      fused: True uses the fused form, with only first-order gradients, and compiled by
        XLA unless `x` is too small to benefit; False uses the plain form; "auto" is
        True where XLA is faster.

    Returns:
      A tensor, or a new list, of the shapes of `x`.
    """
    form = forms.select(
        fused,
        plain=_plain,
        compiled=fused_senet.senet,
        wins=lambda: forms.wins("senet", *_size(x)),
    )
    return form(x, w1, b1, w2, b2)


def squeeze(x: Tensor) -> tf.Tensor:
    """Returns the mean of every feature, `[batch, features]`; `x` as in `senet`."""
    if isinstance(x, (list, tuple)):
        return tf.stack([_mean(feature) for feature in x], axis=1)
    return _mean(x)


def scale(x: Tensor, gates: tf.Tensor) -> Tensor:
    """Returns the features times their gates `[batch, features]`; `x` as in `senet`."""
    if isinstance(x, (list, tuple)):
        return [gates[:, i : i + 1] * feature for i, feature in enumerate(x)]
    return gates[..., tf.newaxis] * x


def _plain(
    x: Tensor, w1: tf.Tensor, b1: tf.Tensor, w2: tf.Tensor, b2: tf.Tensor
) -> tf.Tensor:
    hidden = tf.nn.relu(squeeze(x) @ w1 + b1)  # [batch, units]
    return scale(x, tf.sigmoid(hidden @ w2 + b2))


def _mean(x: tf.Tensor) -> tf.Tensor:
    """Averages the last axis, in float32 where the type is narrower."""
    wide = tf.float32 if x.dtype.size < 4 else x.dtype
    return tf.cast(tf.reduce_mean(tf.cast(x, wide), axis=-1), x.dtype)


def _size(x: Tensor) -> tuple[list[int | None], tf.DType]:
    """Returns batch and width of all features side by side, and their type."""
    if isinstance(x, (list, tuple)):
        width = sum(feature.shape[1] for feature in x)
        return [x[0].shape[0], width], x[0].dtype
    return list(x.shape), x.dtype
