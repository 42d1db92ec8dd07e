"""Searches how many of the first columns of each feature to keep."""

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import threshold_nas
from monolith_tf.layers.parts.straight_through import straight_through


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SimpleNasV2Layer(threshold_nas.ThresholdNASLayer):
    """Searches how many columns, counted from the first, to keep of each feature.

        p = softmax((alpha + G) / temperature)               # G: only in training
        K = smallest c with p_0 + ... + p_c >= threshold     # entry c: c columns
        K = argmax(alpha + G)                                # training with use_gumbel
        y_d = [d < K] * x_d                                  # d from 0

    Gumbel noise `G` is drawn once per call for the whole batch. `alpha` gets the
    gradient of the tails `p_{d+1} + ... + p_D`, the probabilities that column `d` is
    kept. Only a `size_penalty` or a `regularizer` favors few columns: set one of them.

    Source: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
    (arXiv:1611.01144), for the noise; Joglekar et al., "Neural Input Search for Large
    Scale Recommendation Models", KDD 2020 (arXiv:1907.04471), for the widths.

    Args:
      segment_names: Name of each feature, all different.
      segment_sizes: Width of each feature, at least 1.
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

    def _gates(self, logits: tf.Tensor, noisy: bool) -> tf.Tensor:
        p = tf.nn.softmax(logits / self.temperature)
        last = (
            tf.argmax(logits, axis=1)
            if noisy
            else threshold_nas.first_at(p, self.threshold)
        )
        places = tf.range(p.shape[1], dtype=last.dtype)
        kept = tf.cast(places <= last[:, tf.newaxis], p.dtype)
        return straight_through(kept, _tails(p))

    def _expected_columns(self) -> tf.Tensor:
        p = tf.nn.softmax(self._logits() / self.temperature)
        return tf.reduce_sum(self._columns(_tails(p)))


def _tails(p: tf.Tensor) -> tf.Tensor:
    """Returns the sums of each entry of a row and all entries after it."""
    return tf.cumsum(p, axis=1, reverse=True)
