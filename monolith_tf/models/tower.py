"""The hidden layers that models share."""

from collections.abc import Sequence

import tf_keras

from monolith_tf import layers


def hidden(
    units: Sequence[int],
    *,
    dropout: float = 0.0,
    batch_norm: bool = True,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
) -> tf_keras.layers.Layer:
    """Returns dense layers, each followed by batch normalization, relu and dropout.

        x = dropout(relu(batch_norm(x @ w)))    # for every width
        x = dropout(relu(x @ w + b))            # without batch normalization

    Embeddings start small, so batch normalization uses a low momentum and a small
    epsilon. Dense layers before it have no bias: normalization cancels a bias, so its
    gradients would be rounding errors, which Adam scales up to steps. With small
    inputs, such as products of new embeddings, the moving means would lag behind these
    steps by more than the signal, and evaluation would differ from training.

    Args:
      units: Width of every layer, first to last; empty for no layers.
      dropout: Share of every layer's output that training drops.
      batch_norm: Whether layers use batch normalization.
      momentum: Weight of the past in its moving statistics.
      epsilon: Added to its variances.

    Returns:
      A layer from `[batch, width]` to `[batch, units[-1]]`.
    """
    if not units:
        return tf_keras.layers.Identity()
    return layers.MLP(
        units,
        initializers="glorot_normal",
        use_weight_norm=False,
        use_bias="auto",
        enable_batch_normalization=batch_norm,
        batch_normalization_momentum=momentum,
        batch_normalization_epsilon=epsilon,
        batch_normalization_of_input=False,
        dropout=dropout,
        hidden_output=True,
    )
