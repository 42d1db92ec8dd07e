"""Metrics for `tf_keras.Model.compile`, with their state in variables.

    model.compile("adam", "binary_crossentropy", metrics=[metrics.keras.AUC()])

They return the same as the classes of these names in `monolith_tf.metrics`, which the
trainer uses, including NaN.
"""

import tensorflow as tf
import tf_keras

from monolith_tf.metrics.histogram import HIGH
from monolith_tf.metrics.histogram import LOW
from monolith_tf.types import JsonDict
from monolith_tf.types import Tensor


class _BinaryMetric(tf_keras.metrics.Metric):
    """Flattens labels, predictions and weights to float64 `[examples]`."""

    def __init__(
        self,
        name: str | None,
        dtype: tf.DType | str | None,
        from_logits: bool,
        shape: tuple[int, ...],
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.from_logits = from_logits
        # float32 counts would stop at 2^24, and a bfloat16 policy far below.
        self._sums = self.add_weight(
            name="sums", shape=shape, initializer="zeros", dtype=tf.float64
        )

    def update_state(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        """Adds a batch; the arguments broadcast as in Keras' own metrics."""
        labels = tf.cast(y_true, tf.float64)
        predictions = tf.cast(y_pred, tf.float64)
        if sample_weight is None:
            weights = tf.ones_like(predictions)
        else:
            weights = tf.cast(sample_weight, tf.float64)
            if weights.shape.rank == predictions.shape.rank - 1:
                weights = weights[..., tf.newaxis]
            weights = tf.broadcast_to(weights, tf.shape(predictions))
        labels = tf.reshape(labels, tf.shape(predictions))
        self._sums.assign_add(
            self._terms(*(tf.reshape(t, [-1]) for t in (labels, predictions, weights)))
        )

    def reset_state(self) -> None:
        """Forgets everything seen."""
        self._sums.assign(tf.zeros_like(self._sums))

    def get_config(self) -> JsonDict:
        """Returns the constructor's arguments."""
        return super().get_config() | {"from_logits": self.from_logits}

    def _terms(self, labels: Tensor, predictions: Tensor, weights: Tensor) -> Tensor:
        raise NotImplementedError


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class AUC(_BinaryMetric):
    """Area under the ROC curve from a fine histogram on the logit scale.

    Like `monolith_tf.metrics.HistogramAUC`, with fewer bins, since Keras computes a
    result after every batch. Predictions that are not probabilities make it NaN.

    Args:
      num_bins: Bins between the logits -30 and 18; other logits go to the end bins.
      from_logits: Whether predictions are logits, not probabilities.
      name: The metric's name.
      dtype: Of the result.

    Raises:
      ValueError: If `num_bins < 2`.
    """

    def __init__(
        self,
        num_bins: int = 2**16,
        from_logits: bool = False,
        name: str | None = "auc",
        dtype: tf.DType | str | None = None,
    ) -> None:
        if num_bins < 2:
            raise ValueError(
                f"`num_bins` must be at least 2. Received: num_bins={num_bins}."
            )
        super().__init__(name, dtype, from_logits, (2, num_bins))
        self.num_bins = num_bins

    def _terms(self, labels: Tensor, predictions: Tensor, weights: Tensor) -> Tensor:
        logits = predictions
        if not self.from_logits:
            logits = tf.math.log(predictions) - tf.math.log1p(-predictions)
        # NaN has no bin; as a weight it makes the result NaN.
        weights = tf.where(tf.math.is_nan(logits), logits, weights)
        logits = tf.where(tf.math.is_nan(logits), tf.zeros_like(logits), logits)
        scale = self.num_bins / (HIGH - LOW)
        bins = tf.cast((tf.clip_by_value(logits, LOW, HIGH) - LOW) * scale, tf.int32)
        bins = tf.minimum(bins, self.num_bins - 1)
        return tf.stack(
            [
                tf.math.unsorted_segment_sum(weights * side, bins, self.num_bins)
                for side in (1.0 - labels, labels)
            ]
        )  # [2, bins], negatives and positives

    def result(self) -> Tensor:
        """Returns the area over everything seen since the last `reset_state`."""
        negatives, positives = tf.unstack(self._sums)
        below = tf.cumsum(negatives) - negatives / 2.0
        total = tf.reduce_sum(positives) * tf.reduce_sum(negatives)
        return tf.cast(tf.reduce_sum(positives * below) / total, self.dtype)

    def get_config(self) -> JsonDict:
        """Returns the constructor's arguments."""
        return super().get_config() | {"num_bins": self.num_bins}


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class NormalizedEntropy(_BinaryMetric):
    """Log loss divided by that of always predicting the mean label.

    Args:
      from_logits: Whether predictions are logits, not probabilities.
      name: The metric's name.
      dtype: Of the result.
    """

    def __init__(
        self,
        from_logits: bool = False,
        name: str | None = "normalized_entropy",
        dtype: tf.DType | str | None = None,
    ) -> None:
        super().__init__(name, dtype, from_logits, (3,))

    def _terms(self, labels: Tensor, predictions: Tensor, weights: Tensor) -> Tensor:
        if self.from_logits:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, predictions)
        else:
            p = tf.clip_by_value(predictions, 1e-7, 1.0 - 1e-7)
            losses = -labels * tf.math.log(p) - (1.0 - labels) * tf.math.log1p(-p)
        columns = tf.stack([losses, labels, 1.0 - labels])  # [3, examples]
        return tf.linalg.matvec(columns, weights)

    def result(self) -> Tensor:
        """Returns the value over everything seen since the last `reset_state`."""
        loss, positive, negative = tf.unstack(self._sums)
        total = positive + negative
        rates = tf.stack([positive, negative]) / total
        entropy = -tf.reduce_sum(rates * tf.math.log(rates))
        return tf.cast(loss / total / entropy, self.dtype)


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class Calibration(_BinaryMetric):
    """Predicted events per observed event; 1 is best.

    Args:
      from_logits: Whether predictions are logits, not probabilities.
      name: The metric's name.
      dtype: Of the result.
    """

    def __init__(
        self,
        from_logits: bool = False,
        name: str | None = "calibration",
        dtype: tf.DType | str | None = None,
    ) -> None:
        super().__init__(name, dtype, from_logits, (2,))

    def _terms(self, labels: Tensor, predictions: Tensor, weights: Tensor) -> Tensor:
        if self.from_logits:
            predictions = tf.sigmoid(predictions)
        return tf.linalg.matvec(tf.stack([predictions, labels]), weights)

    def result(self) -> Tensor:
        """Returns the value over everything seen since the last `reset_state`."""
        predicted, observed = tf.unstack(self._sums)
        nan = tf.constant(float("nan"), tf.float64)
        return tf.cast(tf.where(observed > 0, predicted / observed, nan), self.dtype)
