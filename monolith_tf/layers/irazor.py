"""Search for the features to keep and the width of their embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import merge
from monolith_tf.layers.parts import search_report


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class iRazor(base.Layer):
    """Weights the columns of every feature by a learned choice between regions.

        p = softmax(nas_logits / t, axis=1)    # [features, regions]
        mask = p @ region_masks                # [features, dim]
        y = x * mask

    Region 0 has no columns; region `i` has those from `nas_space[i - 1]` up to, but not
    including, `nas_space[i]`. With feature weights every call adds the loss
    `sum_f feature_weight[f] * sum_d mask[f, d]`, which favors fewer columns.

    Source: Yao et al., "i-Razor: a differentiable neural input razor for feature
    selection and dimension search", TKDE 2023 (arXiv:2204.00281).

    Args:
      nas_space: Ends of the regions, increasing from 0 to the width of the embeddings.
      t: Temperature of the softmax, above 0; the smaller, the harder the choice.
      initializer: Initializer of the logits; None is "glorot_uniform".
      regularizer: Penalty on the logits.
      feature_weight: Cost of a column of each feature, a number per feature; None for
        no loss.
      out_type: "concat", "stack" or None; see the output shape.
      keep_list: Returns a single tensor as a list of one.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, features, dim]`, `dim` the last entry of `nas_space`.
    Output shape: "concat" `[batch, features * dim]`, "stack" `[batch, features, dim]`,
    None a list of `[batch, dim]`.

    Raises:
      ValueError: If `nas_space` does not increase from 0, `t` is not above 0, or the
        input does not match `nas_space` or `feature_weight`.

    Example:
      >>> iRazor(nas_space=[0, 1, 4, 16])(tf.ones([8, 26, 16])).shape
      TensorShape([8, 416])
    """

    def __init__(
        self,
        nas_space: Sequence[int],
        t: float = 0.05,
        initializer: Any = None,
        regularizer: Any = None,
        feature_weight: Any = None,
        out_type: str | None = merge.MergeType.CONCAT,
        keep_list: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.nas_space = _check_space(nas_space)
        if not t > 0:
            raise ValueError(f"`t` must be above 0. Received: t={t}.")
        self.t = t
        self.initializer = initializers.get(initializer)
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.feature_weight = _check_weight(feature_weight)
        self.out_type = merge.check_merge_type("out_type", out_type)
        self.keep_list = keep_list
        self.input_spec = tf_keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: tf.TensorShape) -> None:
        features = base.static_width("inputs", input_shape, axis=1)
        dim = base.static_width("inputs", input_shape, axis=2)
        if dim != self.nas_space[-1]:
            raise ValueError(
                "`nas_space` must end with the width of the inputs. "
                f"Received: nas_space={list(self.nas_space)}, width={dim}."
            )
        if self.feature_weight is not None and len(self.feature_weight) != features:
            raise ValueError(
                "`feature_weight` must have one number per feature. Received: "
                f"{len(self.feature_weight)} numbers for {features} features."
            )
        self.input_spec = tf_keras.layers.InputSpec(ndim=3, axes={1: features, 2: dim})
        self.nas_logits = self.add_weight(
            "nas_logits",
            [features, len(self.nas_space)],
            initializer=initializers.clone(self.initializer),
            regularizer=self.regularizer,
            experimental_autocast=False,
        )
        super().build(input_shape)

    @property
    def region_masks(self) -> np.ndarray:
        """The columns of every region as ones, `[regions, dim]`."""
        ends = np.array(self.nas_space)[:, np.newaxis]
        starts = np.concatenate([[[0]], ends[:-1]])
        columns = np.arange(self.nas_space[-1])
        return ((columns >= starts) & (columns < ends)).astype(np.float32)

    @property
    def probabilities(self) -> tf.Tensor:
        """The choice of every feature, `[features, regions]`."""
        return tf.nn.softmax(self.nas_logits / self.t, axis=1)

    def call(self, inputs: tf.Tensor) -> Any:
        base.require_floating("inputs", inputs)
        probabilities = self.probabilities
        mask = probabilities @ tf.cast(self.region_masks, probabilities.dtype)
        # [features, dim]
        if self.feature_weight is not None:
            weight = tf.constant(list(self.feature_weight), mask.dtype)
            self.add_loss(tf.reduce_sum(weight * tf.reduce_sum(mask, axis=1)))
        return merge.merge_tensor_list(
            inputs * tf.cast(mask, inputs.dtype),
            self.out_type,
            keep_list=self.keep_list,
        )

    def selected(self, threshold: float = 0.9) -> dict[int, list[int]]:
        """Returns the result of the search: feature -> columns to keep.

        A feature takes its most probable regions until their probabilities sum to the
        threshold. A feature that takes only region 0 is left out.

        Args:
          threshold: Sum of probabilities, above 0 and at most 1.

        Raises:
          ValueError: If `threshold` is out of range.
        """
        if not 0.0 < threshold <= 1.0:
            raise ValueError(
                "`threshold` must be above 0 and at most 1. "
                f"Received: threshold={threshold}."
            )
        masks = self.region_masks
        found = {}
        for feature, p in enumerate(np.asarray(self.probabilities)):
            order = np.argsort(-p, kind="stable")
            before = np.cumsum(p[order]) - p[order]
            taken = order[before < threshold]
            columns = np.flatnonzero(masks[taken].any(axis=0))
            if columns.size:
                found[feature] = columns.tolist()
        return found

    def selected_sizes(self, threshold: float = 0.9) -> list[int]:
        """Returns the number of columns that `selected` keeps, for every feature."""
        found = self.selected(threshold)
        return [len(found.get(i, [])) for i in range(self.nas_logits.shape[0])]

    @property
    def widths(self) -> list[int]:
        """The width of every feature before the search."""
        return [self.nas_space[-1]] * int(self.nas_logits.shape[0])

    def summary_line(self) -> str:
        """Returns what is kept of each feature, as `0: 4/16 | 1: 0/16`."""
        return search_report.line(self._sizes_by_name(), self.widths)

    def write_summaries(self, step: Any = None) -> None:
        """Writes a TensorBoard histogram and the kept columns of every feature.

        Args:
          step: The global step; None uses the step of `tf.summary`.
        """
        rows = np.asarray(self.probabilities).tolist()
        probabilities = {str(feature): row for feature, row in enumerate(rows)}
        search_report.write(self.name, self._sizes_by_name(), probabilities, step)

    def _sizes_by_name(self) -> dict[str, int]:
        return {str(feature): n for feature, n in enumerate(self.selected_sizes())}

    def get_config(self) -> dict[str, Any]:
        weight = self.feature_weight
        return super().get_config() | {
            "nas_space": list(self.nas_space),
            "t": self.t,
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "feature_weight": None if weight is None else list(weight),
            "out_type": self.out_type,
            "keep_list": self.keep_list,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        widths = [0, sizes.dim // 2, sizes.dim]
        weights = [*range(1, sizes.features + 1)]
        return cls(widths, feature_weight=weights), sizes.stack


def _check_space(nas_space: Sequence[int]) -> list[int]:
    """Returns the ends of the regions; `ValueError` unless they increase from 0."""
    ends = [int(n) for n in nas_space]
    steps = np.diff(ends)
    if len(ends) < 2 or ends[0] != 0 or ends != list(nas_space) or (steps <= 0).any():
        raise ValueError(
            "`nas_space` must be integers increasing from 0 to the embeddings' width. "
            f"Received: nas_space={list(nas_space)}."
        )
    return ends


def _check_weight(feature_weight: Any) -> list[float] | None:
    """Returns the costs as plain numbers."""
    if feature_weight is None:
        return None
    values = np.asarray(feature_weight, np.float64)
    if values.ndim != 1:
        raise ValueError(
            "`feature_weight` must be a list of numbers. "
            f"Received: feature_weight.shape={values.shape}."
        )
    return values.tolist()
