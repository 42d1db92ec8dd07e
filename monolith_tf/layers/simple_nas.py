"""Searches the columns of each feature that hold most of the probability."""

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import threshold_nas
from monolith_tf.layers.parts.straight_through import straight_through


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SimpleNasLayer(threshold_nas.ThresholdNASLayer):
    """Searches the most probable columns of each feature.

        p = softmax((alpha + G) / temperature)               # G: only in training
        pivot = the p at which the sum of the largest p reaches the threshold
        kept_d = [p_{d+1} >= pivot]                          # entry 0: no column
        y_d = kept_d * x_d

    Entries that tie with the pivot are kept; if the threshold is not reached, up to
    1e-6, all are. Gumbel noise `G` is drawn once per call for the whole batch. A kept
    column passes the gradient of its `p` to `alpha`; the others pass none and return
    only through the noise. Only a `size_penalty` or a `regularizer` favors few columns:
    set one of them. The penalty here is on `exp(-sum p * log(p))`, the effective number
    of entries.

    Source: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
    (arXiv:1611.01144), for the noise.

    Args:
      segment_names: Name of each feature, all different.
      segment_sizes: Width of each feature, at least 1.
      threshold: Share of the probability that the kept entries must reach, above 0 and
        at most 1.
      temperature: Divides the logits, above 0.
      use_gumbel: Adds Gumbel noise to the logits in training.
      initializer: Initializer of `alpha`; None is "zeros", which keeps all.
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss that sums the effective numbers of entries.
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

    def _gates(self, logits: tf.Tensor, noisy: bool) -> tf.Tensor:
        p = tf.nn.softmax(logits / self.temperature)
        kept = tf.cast(_reaching(p, self.threshold), p.dtype)
        return straight_through(kept, kept * p)

    def _expected_columns(self) -> tf.Tensor:
        logp = tf.nn.log_softmax(self._logits() / self.temperature)
        return tf.reduce_sum(tf.exp(-tf.reduce_sum(tf.exp(logp) * logp, axis=1)))


def _reaching(p: tf.Tensor, threshold: float) -> tf.Tensor:
    """Returns which entries are as large as those whose sum reaches the threshold.

    Args:
      p: Probabilities, `[rows, entries]`.
      threshold: See `SimpleNasLayer`.

    Returns:
      `[rows, entries]`, bool; all True where the threshold is not reached.
    """
    falling = tf.sort(p, axis=1, direction="DESCENDING")
    pivot = tf.gather(
        falling, threshold_nas.first_at(falling, threshold), axis=1, batch_dims=1
    )
    return p >= pivot[:, tf.newaxis]
