"""Base class of the two searches for the most probable columns of each feature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.layers.parts import modes
from monolith_tf.layers.parts import nas_base

_SLACK = 1e-6  # how far rounding may move a sum of probabilities below the threshold


class ThresholdNASLayer(nas_base.ChoiceNASLayer):
    """A search over `width + 1` entries per feature, the first for no columns.

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
        """Returns the kept share of every entry, `[features, most entries]`."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `_gates`.")

    def _columns(self, entries: tf.Tensor) -> tf.Tensor:
        """Returns the entries that are columns, `[sum of widths]`."""
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


def first_at(p: tf.Tensor, threshold: float) -> tf.Tensor:
    """Returns the index in each row at which the sum reaches a threshold.

    Args:
      p: Probabilities, `[rows, entries]`.
      threshold: See `SimpleNasV2Layer`.

    Returns:
      `[rows]`, int64; the last index if the threshold is not reached.
    """
    reached = tf.cumsum(p, axis=1) >= threshold - _SLACK
    first = tf.argmax(tf.cast(reached, tf.int32), axis=1)
    return tf.where(reached[:, -1], first, p.shape[1] - 1)
