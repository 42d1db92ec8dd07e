"""An on-off gate for each segment."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import modes
from monolith_tf.layers.parts import nas_base
from monolith_tf.layers.parts.straight_through import straight_through

_STE_TYPES = ("softplus", "clip", "none")


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class NASGatingLayer(nas_base.NASLayer):
    """Searches which segments of the input, features or parts of one, to keep.

        p = sigmoid(alpha)
        z = [u <= p]                                         # training, u uniform
        z = [s >= 1/2]                                       # training, use_logistic
        s = sigmoid((log(u) - log(1 - u) + alpha) / temperature)
        z = [alpha >= 0]                                     # otherwise
        y_i = z_i * x_i

    A gate is drawn once per call for the whole batch. Through a gate, `alpha` gets the
    gradient of `z` times a factor:

        none      s * (1 - s), s = p without use_logistic; divided by the temperature
                  with it
        softplus  softplus(alpha)
        clip      min(softplus(alpha), 1)

    A closed gate returns zeros and still learns. Only a `size_penalty` or a
    `regularizer` makes gates close: set one of them.

    Source: straight-through gates, Bengio et al. (arXiv:1308.3432); the logistic draw,
    Maddison et al., "The Concrete Distribution", ICLR 2017 (arXiv:1611.00712).

    Args:
      segment_names: Name of each segment, all different.
      segment_sizes: Width of each segment, at least 1.
      ste_type: Factor of the gradient: "none", "softplus" or "clip".
      use_logistic: Draws gates from the logistic distribution.
      temperature: Temperature of that draw, above 0.
      initializer: Initializer of `alpha`; None is "zeros". With the default, ones, a
        gate starts open with probability 0.731.
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss `sum p_i * segment_sizes[i]`.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, sum of segment_sizes]`, or a list of `[batch, segment_size]`.
    Output shape: that of the input.

    Raises:
      ValueError: If an argument is out of range or the widths do not match.

    Example:
      >>> layer = NASGatingLayer(["user", "item"], [8, 16], size_penalty=0.01)
      >>> layer(tf.ones([4, 24])).shape
      TensorShape([4, 24])
      >>> layer.selected_sizes()
      {'user': 8, 'item': 16}
    """

    def __init__(
        self,
        segment_names: Sequence[str],
        segment_sizes: Sequence[int],
        ste_type: str = "none",
        use_logistic: bool = False,
        temperature: float = 1.0,
        initializer: Any = "ones",
        regularizer: Any = None,
        size_penalty: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            segment_names,
            widths=nas_base.check_sizes(segment_sizes),
            temperature=temperature,
            initializer=initializer,
            regularizer=regularizer,
            size_penalty=size_penalty,
            **kwargs,
        )
        if ste_type not in _STE_TYPES:
            raise ValueError(
                f"`ste_type` must be one of {', '.join(_STE_TYPES)}. "
                f"Received: ste_type={ste_type!r}."
            )
        self.ste_type = ste_type
        self.use_logistic = use_logistic

    def build(self, input_shape: Any) -> None:
        self.alpha = self._add_alpha(0, "alpha", len(self.segment_names))
        super().build(input_shape)

    def gates(self, training: Any = False) -> tf.Tensor:
        """Returns the gates `z`, `[segments]`.

        Args:
          training: Whether to draw them, as in training.
        """
        alpha = tf.convert_to_tensor(self.alpha)
        draw = _draw_logistic if self.use_logistic else _draw_bernoulli
        z, s = modes.choose(
            modes.is_training(training),
            lambda: draw(alpha, self._uniform(alpha.shape), self.temperature),
            lambda: (tf.cast(alpha >= 0.0, alpha.dtype), tf.sigmoid(alpha)),
        )
        factor = self._gradient_factor(alpha, s)
        return straight_through(z, alpha * factor)

    def _gradient_factor(self, alpha: tf.Tensor, s: tf.Tensor) -> tf.Tensor:
        """Returns the surrogate derivative of a gate by its logit."""
        if self.ste_type == "none":
            scale = self.temperature if self.use_logistic else 1.0
            return tf.stop_gradient(s * (1.0 - s) / scale)
        factor = tf.nn.softplus(tf.stop_gradient(alpha))
        return tf.minimum(factor, 1.0) if self.ste_type == "clip" else factor

    def _mask(self, training: Any) -> tf.Tensor:
        return tf.gather(self.gates(training), self._segment_of_column())

    def _expected_width(self) -> tf.Tensor:
        sizes = tf.constant(list(self.widths), tf.float32)
        return tf.reduce_sum(tf.sigmoid(self.alpha) * sizes)

    def probabilities(self) -> dict[str, list[float]]:
        """Returns segment -> the probability that it is kept, in a list of one."""
        values = tf.sigmoid(self.alpha).numpy().tolist()
        return {n: [p] for n, p in zip(self.segment_names, values, strict=True)}

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "segment_sizes": list(self.widths),
            "ste_type": self.ste_type,
            "use_logistic": self.use_logistic,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        layer = cls(sizes.names, [sizes.dim] * sizes.features, use_logistic=True)
        return layer, sizes.flat


def _draw_bernoulli(
    alpha: tf.Tensor, uniform: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a gate and the probability that it is open."""
    del temperature
    p = tf.sigmoid(alpha)
    return tf.cast(uniform <= p, alpha.dtype), p


def _draw_logistic(
    alpha: tf.Tensor, uniform: tf.Tensor, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a gate and the soft gate that it was rounded from."""
    u = base.clip_uniform(uniform)
    s = tf.sigmoid((tf.math.log(u) - tf.math.log(1.0 - u) + alpha) / temperature)
    return tf.cast(s >= 0.5, alpha.dtype), s
