"""Two searches for the most probable columns of each segment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import nas_base
from monolith_tf.layers.parts.straight_through import straight_through

_SLACK = 1e-6  # how far rounding may move a sum of probabilities below the threshold


class _ThresholdNASLayer(nas_base.ChoiceNASLayer):
    """A search over `width + 1` choices for each segment, the first for no columns."""

    def __init__(
        self,
        segment_names: Sequence[str],
        segment_sizes: Sequence[int],
        threshold: float = 0.9,
        temperature: float = 1.5,
        use_gumbel: bool = True,
        initializer: Any = "zeros",
        regularizer: Any = None,
        size_penalty: float = 0.0,
        **kwargs: Any,
    ) -> None:
        sizes = nas_base.check_sizes(segment_sizes)
        super().__init__(
            segment_names,
            widths=sizes,
            choices=[size + 1 for size in sizes],
            draws=use_gumbel,
            temperature=temperature,
            initializer=initializer,
            regularizer=regularizer,
            size_penalty=size_penalty,
            **kwargs,
        )
        if not 0.0 < threshold <= 1.0:
            raise ValueError(
                "`threshold` must be above 0 and at most 1. "
                f"Received: threshold={threshold}."
            )
        self.threshold = threshold
        self.use_gumbel = use_gumbel

    def _by_column(self, of_choices: tf.Tensor) -> tf.Tensor:
        """Returns the value of choice `d + 1` for every column `d`.

        Args:
          of_choices: `[segments, most choices]`.

        Returns:
          `[sum of widths]`.
        """
        index = [
            (segment, d + 1)
            for segment, width in enumerate(self.widths)
            for d in range(width)
        ]
        return tf.gather_nd(of_choices, np.asarray(index))

    def get_config(self) -> dict[str, Any]:
        """See base class."""
        return super().get_config() | {
            "segment_sizes": list(self.widths),
            "threshold": self.threshold,
            "use_gumbel": self.use_gumbel,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(sizes.names, [sizes.dim] * sizes.features), sizes.flat


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SimpleNasLayer(_ThresholdNASLayer):
    """Searches the most probable columns of each segment.

        p = softmax((alpha + G) / temperature)               # G: only in training
        pivot = the p at which the sum of the largest p reaches the threshold
        kept_d = [p_{d+1} >= pivot]                          # choice 0: no column
        y_d = kept_d * x_d

    Choices that tie with the pivot are kept; if the threshold is not reached, up to
    1e-6, all are. Gumbel noise `G` is drawn once per call for the whole batch. A kept
    column passes the gradient of its `p` to `alpha`; the others pass none and return
    only through the noise. Only a `size_penalty` or a `regularizer` favors few columns:
    set one of them. The penalty here is on `exp(-sum p * log(p))`, the effective number
    of choices.

    Source: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
    (arXiv:1611.01144), for the noise.

    Args:
      segment_names: Name of each segment, a feature or a part of one, all different.
      segment_sizes: Width of each segment, at least 1.
      threshold: Share of the probability that the kept choices must reach, above 0 and
        at most 1.
      temperature: Divides the logits, above 0.
      use_gumbel: Adds Gumbel noise to the logits in training.
      initializer: Initializer of `alpha`; None is "zeros", which keeps all.
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss that sums the effective numbers of choices.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, sum of segment_sizes]`, or a list of `[batch, segment_size]`.
    Output shape: that of the input.

    Raises:
      ValueError: If an argument is out of range or the widths do not match.

    Example:
      >>> layer = SimpleNasLayer(["user", "item"], [8, 16], size_penalty=0.01)
      >>> layer([tf.ones([4, 8]), tf.ones([4, 16])])[1].shape
      TensorShape([4, 16])
      >>> layer.selected_sizes()
      {'user': 8, 'item': 16}
    """

    def _weights(self, logits: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
        p = self._softmax(logits, noise)
        kept = tf.cast(_reaching(p, self.threshold), p.dtype)
        return straight_through(kept, kept * p)

    def _mask_of(self, weights: tf.Tensor) -> tf.Tensor:
        return self._by_column(weights)

    def _expected_width(self) -> tf.Tensor:
        logp = tf.nn.log_softmax(self._logits() / self.temperature)
        return tf.reduce_sum(tf.exp(-tf.reduce_sum(tf.exp(logp) * logp, axis=1)))


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SimpleNasV2Layer(_ThresholdNASLayer):
    """Searches how many columns, counted from the first, to keep of each segment.

        p = softmax((alpha + G) / temperature)               # G: only in training
        K = smallest c with p_0 + ... + p_c >= threshold     # choice c: c columns
        K = argmax(alpha + G)                                # training with use_gumbel
        y_d = [d < K] * x_d                                  # d from 0

    Gumbel noise `G` is drawn once per call for the whole batch. `alpha` gets the
    gradient of the tails `p_{d+1} + ... + p_D`, the probabilities that column `d` is
    kept. Only a `size_penalty` or a `regularizer` favors few columns: set one of them.

    Source: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
    (arXiv:1611.01144), for the noise; Joglekar et al., "Neural Input Search for Large
    Scale Recommendation Models", KDD 2020 (arXiv:1907.04471), for the widths.

    Args:
      segment_names: Name of each segment, a feature or a part of one, all different.
      segment_sizes: Width of each segment, at least 1.
      threshold: Share of the probability that the first columns must reach, above 0 and
        at most 1; 1e-6 less is enough.
      temperature: Divides the logits, above 0.
      use_gumbel: Draws the number of columns in training.
      initializer: Initializer of `alpha`; None is "zeros".
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss that counts the columns expected to be kept.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, sum of segment_sizes]`, or a list of `[batch, segment_size]`.
    Output shape: that of the input.

    Raises:
      ValueError: If an argument is out of range or the widths do not match.

    Example:
      >>> layer = SimpleNasV2Layer(["user", "item"], [9, 19], threshold=0.9)
      >>> layer(tf.ones([4, 28])).shape
      TensorShape([4, 28])
      >>> layer.selected_sizes()
      {'user': 8, 'item': 17}
    """

    def _weights(self, logits: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
        p = self._softmax(logits, noise)
        if noise is None:
            size = _first_at(p, self.threshold)
        else:
            size = tf.argmax(logits + noise, axis=1)
        return straight_through(tf.one_hot(size, p.shape[1]), p)

    def _mask_of(self, weights: tf.Tensor) -> tf.Tensor:
        """Sums the weights of all choices that keep a column."""
        return self._by_column(tf.cumsum(weights, axis=1, reverse=True))


def _reaching(p: tf.Tensor, threshold: float) -> tf.Tensor:
    """Returns which choices are as probable as those whose sum reaches the threshold.

    Args:
      p: Probabilities, `[segments, most choices]`.
      threshold: See `SimpleNasLayer`.

    Returns:
      `[segments, most choices]`, bool; all True where the threshold is not reached.
    """
    falling = tf.sort(p, axis=1, direction="DESCENDING")
    pivot = tf.gather(falling, _first_at(falling, threshold), axis=1, batch_dims=1)
    return p >= pivot[:, tf.newaxis]


def _first_at(p: tf.Tensor, threshold: float) -> tf.Tensor:
    """Returns the first choice at which the sum of probabilities reaches a threshold.

    Args:
      p: Probabilities, `[segments, most choices]`, in any order of the choices.
      threshold: See `SimpleNasV2Layer`.

    Returns:
      `[segments]`, int64; the last choice if the threshold is not reached.
    """
    reached = tf.cumsum(p, axis=1) >= threshold - _SLACK
    first = tf.argmax(tf.cast(reached, tf.int32), axis=1)
    return tf.where(reached[:, -1], first, p.shape[1] - 1)
