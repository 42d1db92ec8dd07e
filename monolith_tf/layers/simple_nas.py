"""Searches the columns of each feature that hold most of the probability."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers import modes
from monolith_tf.layers import nas_base
from monolith_tf.layers.straight_through import straight_through

_SLACK = 1e-6  # how far rounding may keep a sum of probabilities below the threshold


class ThresholdNASLayer(nas_base.ChoiceNASLayer):
    """A search over `width + 1` entries per feature, the first for no column at all.

    Args:
      segment_names: Name of each feature, all different.
      segment_sizes: Width of each feature, at least 1.
      threshold: Share of the probability that the kept entries must reach, above 0 and
        at most 1.
      temperature: Divides the logits, above 0.
      use_gumbel: Adds Gumbel noise to the logits in training.
      initializer: Initializer of `alpha`; None is "zeros".
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss that counts the columns expected to be kept.
      **kwargs: Arguments of `tf_keras.layers.Layer`.
    """

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

    def _masks(self, training: Any) -> tf.Tensor:
        """Returns the factor of every column, `[sum of widths]`."""
        logits = self._logits()
        noisy = modes.is_training(training) if self.use_gumbel else False
        return modes.choose(
            noisy,
            lambda: self._columns(self._gates(logits + self._noise(), noisy=True)),
            lambda: self._columns(self._gates(logits, noisy=False)),
        )

    def _gates(self, logits: tf.Tensor, noisy: bool) -> tf.Tensor:
        """Returns what is kept of every entry, `[features, most entries]`."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `_gates`.")

    def _columns(self, entries: tf.Tensor) -> tf.Tensor:
        """Returns the entries that stand for columns, `[sum of widths]`."""
        index = [
            (row, d + 1) for row, width in enumerate(self.widths) for d in range(width)
        ]
        return tf.gather_nd(entries, np.asarray(index))

    def _kept(self) -> tf.Tensor:
        return self._masks(training=False)

    def get_config(self) -> dict[str, Any]:
        """See base class."""
        return super().get_config() | {
            "segment_sizes": list(self.widths),
            "threshold": self.threshold,
            "use_gumbel": self.use_gumbel,
        }


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SimpleNasLayer(ThresholdNASLayer):
    """Searches the most probable columns of each feature.

        p = softmax((alpha + G) / temperature)               # G: only in training
        pivot = the p at which the sum of the largest p reaches the threshold
        kept_d = [p_{d+1} >= pivot]                          # entry 0: no column
        y_d = kept_d * x_d

    Entries that tie with the pivot stay; so do all where the threshold is not reached,
    up to 1e-6. Gumbel noise `G` is drawn once per call for the whole batch. A kept
    column passes the gradient of its `p` on to `alpha`, the others pass none and come
    back by the noise alone. Nothing pushes to few columns but a `size_penalty` or a
    `regularizer`: set one of them; the penalty here is on the effective number of
    entries, `exp(-sum p * log(p))`.

    Source: Jang et al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
    (arXiv:1611.01144), for the noise.

    Args:
      segment_names: Name of each feature, all different.
      segment_sizes: Width of each feature, at least 1.
      threshold: Share of the probability that the kept entries must reach, above 0 and
        at most 1.
      temperature: Divides the logits, above 0.
      use_gumbel: Adds Gumbel noise to the logits in training.
      initializer: Initializer of `alpha`; None is "zeros", with which all is kept.
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss that sums the effective numbers of entries.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, sum of segment_sizes]`, or a list of `[batch, segment_size]`.
    Output shape: that of the input.

    Raises:
      ValueError: If an argument is out of range or the widths do not fit.

    Example:
      >>> layer = SimpleNasLayer(["user", "item"], [8, 16], size_penalty=0.01)
      >>> layer([tf.ones([4, 8]), tf.ones([4, 16])])[1].shape
      TensorShape([4, 16])
      >>> layer.selected_sizes()
      {'user': 8, 'item': 16}
    """

    def _gates(self, logits: tf.Tensor, noisy: bool) -> tf.Tensor:
        p = tf.nn.softmax(logits / self.temperature)
        kept = tf.cast(reaching(p, self.threshold), p.dtype)
        return straight_through(kept, kept * p)

    def _expected_columns(self) -> tf.Tensor:
        logp = tf.nn.log_softmax(self._logits() / self.temperature)
        return tf.reduce_sum(tf.exp(-tf.reduce_sum(tf.exp(logp) * logp, axis=1)))


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SimpleNasV2Layer(ThresholdNASLayer):
    """Searches how many columns, counted from the first, to keep of each feature.

        p = softmax((alpha + G) / temperature)               # G: only in training
        K = smallest c with p_0 + ... + p_c >= threshold     # entry c: c columns
        K = argmax(alpha + G)                                # training with use_gumbel
        y_d = [d < K] * x_d                                  # d from 0

    Gumbel noise `G` is drawn once per call for the whole batch. `alpha` gets the
    gradient of the tails `p_{d+1} + ... + p_D`, the probabilities that column `d` is
    kept. Nothing pushes to few columns but a `size_penalty` or a `regularizer`: set one
    of them.

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
      ValueError: If an argument is out of range or the widths do not fit.

    Example:
      >>> layer = SimpleNasV2Layer(["user", "item"], [9, 19], threshold=0.9)
      >>> layer(tf.ones([4, 28])).shape
      TensorShape([4, 28])
      >>> layer.selected_sizes()
      {'user': 8, 'item': 17}
    """

    def _gates(self, logits: tf.Tensor, noisy: bool) -> tf.Tensor:
        p = tf.nn.softmax(logits / self.temperature)
        last = tf.argmax(logits, axis=1) if noisy else first_at(p, self.threshold)
        places = tf.range(p.shape[1], dtype=last.dtype)
        kept = tf.cast(places <= last[:, tf.newaxis], p.dtype)
        return straight_through(kept, _tails(p))

    def _expected_columns(self) -> tf.Tensor:
        p = tf.nn.softmax(self._logits() / self.temperature)
        return tf.reduce_sum(self._columns(_tails(p)))


def _tails(p: tf.Tensor) -> tf.Tensor:
    """Returns the sums of each entry of a row and all behind it."""
    return tf.cumsum(p, axis=1, reverse=True)


def first_at(p: tf.Tensor, threshold: float) -> tf.Tensor:
    """Returns the place in each row at which the sum reaches a threshold.

    Args:
      p: Probabilities, `[rows, entries]`.
      threshold: See `SimpleNasV2Layer`.

    Returns:
      `[rows]`, int64; the last place where the threshold is not reached.
    """
    reached = tf.cumsum(p, axis=1) >= threshold - _SLACK
    first = tf.argmax(tf.cast(reached, tf.int32), axis=1)
    return tf.where(reached[:, -1], first, p.shape[1] - 1)


def reaching(p: tf.Tensor, threshold: float) -> tf.Tensor:
    """Returns which entries are as large as those whose sum reaches a threshold.

    Args:
      p: Probabilities, `[rows, entries]`.
      threshold: See `SimpleNasLayer`.

    Returns:
      `[rows, entries]`, bool; all True where the threshold is not reached.
    """
    falling = tf.sort(p, axis=1, direction="DESCENDING")
    pivot = tf.gather(falling, first_at(falling, threshold), axis=1, batch_dims=1)
    return p >= pivot[:, tf.newaxis]
