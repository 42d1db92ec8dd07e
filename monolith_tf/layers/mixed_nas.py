"""A choice between several embedding widths for each segment."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import nas_base
from monolith_tf.layers.parts.straight_through import straight_through

_SHARE_MODES = ("left", "diff", "random", "none")
_GRAD_MODES = ("discrete", "gumbel", "none")


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class MixedNASLayer(nas_base.ChoiceNASLayer):
    """Searches one width out of several for each segment.

        p = softmax(alpha / temperature)                     # by segment
        y = x * (w @ M)                                      # M: masks of the choices

    With the sizes `s_0 < s_1 < ...` the first choice removes the segment, regardless of
    `s_0`, and the mask of choice `c` has ones at

        left    the first s_c columns
        diff    columns s_{c-1} to s_c - 1
        random  the first s_c entries of a fixed random order of the columns
        none    its own s_c columns, after those of the choices before it

    and the weights of the choices are

        none      w = p
        gumbel    w = softmax((alpha + G) / temperature) in training, else p
        discrete  w = one-hot of a choice drawn from p in training, else of the largest
                  alpha; its gradient is that of p at this choice, the others get none

    with `G` Gumbel noise, drawn once per call for the whole batch. Only a
    `size_penalty` or a `regularizer` favors small widths: set one of them.

    Source: Liu et al., "DARTS", ICLR 2019 (arXiv:1806.09055), mixed choices; Jang et
    al., "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017
    (arXiv:1611.01144); Zhao et al., "AutoEmb", ICDM 2021 (arXiv:2002.11252), widths.

    Args:
      segment_sizes: The widths to choose from, one increasing list of at least two
        sizes per segment; start it with 0.
      segment_names: Name of each segment, a feature or a part of one, all different.
      temperature: Divides the logits, above 0.
      embedding_share_mode: Columns of the choices: "left", "diff", "random" or "none".
      weight_grad_mode: Weights of the choices: "discrete", "gumbel" or "none".
      seed: Seed of the order in "random", at least 0.
      initializer: Initializer of `alpha`; None is "zeros".
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss that counts the columns expected to be kept.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, sum of widths]`, or a list of `[batch, width]`, where the
    width of a segment is the sum of its sizes in the share mode "none", and the last of
    its sizes in the others.
    Output shape: that of the input.

    Raises:
      ValueError: If an argument is out of range or the widths do not match.

    Example:
      >>> layer = MixedNASLayer([[0, 4, 16], [0, 8]], ["user", "item"],
      ...                       embedding_share_mode="left", size_penalty=0.01)
      >>> layer(tf.ones([4, 24])).shape
      TensorShape([4, 24])
      >>> layer.selected_sizes()
      {'user': 0, 'item': 0}
    """

    def __init__(
        self,
        segment_sizes: Sequence[Sequence[int]],
        segment_names: Sequence[str],
        temperature: float = 1.0,
        embedding_share_mode: str = "none",
        weight_grad_mode: str = "discrete",
        seed: int = 0,
        initializer: Any = "zeros",
        regularizer: Any = None,
        size_penalty: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if embedding_share_mode not in _SHARE_MODES:
            raise ValueError(
                f"`embedding_share_mode` must be one of {', '.join(_SHARE_MODES)}. "
                f"Received: embedding_share_mode={embedding_share_mode!r}."
            )
        if weight_grad_mode not in _GRAD_MODES:
            raise ValueError(
                f"`weight_grad_mode` must be one of {', '.join(_GRAD_MODES)}. "
                f"Received: weight_grad_mode={weight_grad_mode!r}."
            )
        if seed < 0:
            raise ValueError(f"`seed` must not be negative. Received: seed={seed}.")
        sizes = _check_sizes(segment_sizes)
        share_all = embedding_share_mode == "none"
        super().__init__(
            segment_names,
            widths=[sum(row) if share_all else row[-1] for row in sizes],
            choices=[len(row) for row in sizes],
            draws=weight_grad_mode != "none",
            temperature=temperature,
            initializer=initializer,
            regularizer=regularizer,
            size_penalty=size_penalty,
            **kwargs,
        )
        self.segment_sizes = sizes
        self.embedding_share_mode = embedding_share_mode
        self.weight_grad_mode = weight_grad_mode
        self.seed = seed

    def masks(self) -> dict[str, np.ndarray]:
        """Returns segment -> masks of its choices, `[choices, width]`."""
        return {
            name: choice_masks(sizes, self.embedding_share_mode, self.seed + i)
            for i, (name, sizes) in enumerate(
                zip(self.segment_names, self.segment_sizes, strict=True)
            )
        }

    def _weights(self, logits: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
        if self.weight_grad_mode != "discrete":
            return self._softmax(logits, noise)
        scores = logits if noise is None else logits / self.temperature + noise
        one_hot = _one_hot_of_largest(scores)
        return straight_through(one_hot, one_hot * self._softmax(logits))

    def _mask_of(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns `w @ M` of all segments."""
        most = max(self.choices)
        masks = np.concatenate(
            [np.pad(m, [(0, most - len(m)), (0, 0)]) for m in self.masks().values()],
            axis=1,
        )  # [most choices, sum of widths]
        by_column = tf.gather(weights, self._segment_of_column())
        return tf.reduce_sum(by_column * masks.T.astype(np.float32), axis=1)

    def _selected_mask(self) -> tf.Tensor:
        return self._mask_of(_one_hot_of_largest(self._logits()))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "segment_sizes": [list(row) for row in self.segment_sizes],
            "embedding_share_mode": self.embedding_share_mode,
            "weight_grad_mode": self.weight_grad_mode,
            "seed": self.seed,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        batch, features, dim = sizes.stack
        widths = [*[[0, dim]] * (features - 1), [0, 1, dim]]
        layer = cls(widths, sizes.names, size_penalty=0.1)
        return layer, (batch, features * dim + 1)


def _one_hot_of_largest(scores: tf.Tensor) -> tf.Tensor:
    """Returns ones at the first of each row's largest scores, zeros elsewhere."""
    return tf.one_hot(tf.argmax(scores, axis=1), scores.shape[1])


def choice_masks(sizes: Sequence[int], share_mode: str, seed: int) -> np.ndarray:
    """Returns which columns each choice of a segment keeps, `[choices, width]`.

    Args:
      sizes: The segment's sizes, increasing.
      share_mode: See `MixedNASLayer`.
      seed: Seed of the order of the columns in the mode "random".
    """
    width = sum(sizes) if share_mode == "none" else sizes[-1]
    order = np.arange(width)
    if share_mode == "random":
        order = np.random.RandomState(seed).permutation(width)
    masks = np.zeros([len(sizes), width])
    for c in range(1, len(sizes)):
        start, end = 0, sizes[c]
        if share_mode == "diff":
            start = sizes[c - 1]
        elif share_mode == "none":
            start = sum(sizes[:c])
            end = start + sizes[c]
        masks[c, order[start:end]] = 1.0
    return masks


def _check_sizes(segment_sizes: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns the sizes as lists; errors and warnings as the class describes them."""
    sizes = [[int(size) for size in row] for row in segment_sizes]
    for row in sizes:
        if len(row) < 2 or row[0] < 0 or row != sorted(set(row)):
            raise ValueError(
                "`segment_sizes` must have an increasing list of at least two sizes, "
                f"none below 0, for each segment. Received: {row} in "
                f"segment_sizes={sizes}."
            )
    not_zero = [row for row in sizes if row[0]]
    if not_zero:
        warnings.warn(
            "The first choice of `segment_sizes` removes the segment, whatever its "
            f"size. Received: {not_zero}. Start the list with 0.",
            UserWarning,
            stacklevel=3,
        )
    return sizes
