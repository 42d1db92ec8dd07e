"""The hidden layers that models share."""

from collections.abc import Sequence

import tf_keras

from monolith_tf import layers
from monolith_tf.layers import batch_normalization
from monolith_tf.types import Tensor

_MOMENTUM = 0.9
_EPSILON = 1e-5


class Tower(tf_keras.layers.Layer):
    """Dense layers, each followed by batch normalization, relu and dropout.

        x = dropout(relu(batch_norm(x @ w)))    # for every width
        x = dropout(relu(x @ w + b))            # without batch normalization

    Embeddings start small, so batch normalization uses a low momentum and a small
    epsilon. Dense layers before it have no bias: normalization cancels a bias, so its
    gradients would be rounding errors, which Adam scales up to steps. With small
    inputs, such as products of new embeddings, the moving means would lag behind these
    steps by more than the signal, and evaluation would differ from training.

    Args:
      units: Width of every layer, first to last.
      dropout: Share of every layer's output that training drops.
      batch_norm: Whether layers use batch normalization.

    Input shape: `[batch, width]`.
    Output shape: `[batch, units[-1]]`.
    """

    def __init__(
        self,
        units: Sequence[int],
        *,
        dropout: float = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self._layers: list[tf_keras.layers.Layer] = []
        for width in units:
            self._layers.append(
                tf_keras.layers.Dense(
                    width, use_bias=not batch_norm, kernel_initializer="glorot_normal"
                )
            )
            if batch_norm:
                self._layers.append(
                    batch_normalization.BatchNormalization(
                        momentum=_MOMENTUM, epsilon=_EPSILON
                    )
                )
            self._layers.append(tf_keras.layers.ReLU())
            if dropout:
                self._layers.append(layers.Dropout(dropout))

    def call(self, inputs: Tensor) -> Tensor:
        """See the class."""
        outputs = inputs
        for layer in self._layers:
            outputs = layer(outputs)
        return outputs
