"""Base classes of layers that search for the columns of each segment to keep.

`NASLayer` multiplies columns by a mask; `ChoiceNASLayer` makes this mask from a softmax
over several choices for each segment. Shapes below use these words:

    segment   a feature, or a part of one: a range of columns of the input
    width     number of columns of a segment
    mask      factor of every column, `[sum of widths]`, float32
    choice    what a search may keep of a segment; the rows of
              `[segments, most choices]` are padded to the longest
"""

import json
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import input_shapes
from monolith_tf.layers.parts import modes
from monolith_tf.layers.parts import search_report

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_./-]")  # of variables in a SavedModel
_NEVER = -1e9  # a logit whose probability is exactly 0 and whose gradients are finite


class NASLayer(base.Layer):
    """Multiplies the columns of its input by a learned mask.

    A subclass adds the logits in `build`, and defines `_mask`, `_expected_width` and
    `probabilities`. If its masks outside training are not only zeros and ones, it
    defines `_selected_mask` too.

    Args:
      segment_names: Name of each segment, all different.
      widths: Width of each segment.
      temperature: Divides the logits, above 0.
      initializer: Initializer of `alpha`, the logits of the search.
      regularizer: Penalty on `alpha`.
      size_penalty: Factor of the loss that counts the columns expected to be kept.
      **kwargs: Arguments of `tf_keras.layers.Layer`.
    """

    def __init__(
        self,
        segment_names: Sequence[str],
        widths: Sequence[int],
        temperature: float,
        initializer: Any,
        regularizer: Any,
        size_penalty: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.segment_names = _check_names(segment_names, len(widths))
        self.widths = list(widths)
        if temperature <= 0.0:
            raise ValueError(
                f"`temperature` must be above 0. Received: temperature={temperature}."
            )
        self.temperature = temperature
        self.initializer = initializers.get(initializer, "zeros")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.size_penalty = size_penalty

    def _add_alpha(self, index: int, name: str, length: int) -> Any:
        """Adds logits of the search; a trainer may treat them unlike weights."""
        alpha = self.add_weight(
            _NOT_IN_NAMES.sub("_", name),
            [length],
            dtype=tf.float32,
            initializer=initializers.clone(self.initializer, index),
            regularizer=self.regularizer,
            experimental_autocast=False,
        )
        alpha.is_arch = True
        return alpha

    def build(self, input_shape: Any) -> None:
        """Checks the widths."""
        several = isinstance(input_shape, (list, tuple))
        found = [shape[-1] for shape in input_shapes.as_list(input_shape)]
        expected = list(self.widths)
        if found not in (expected, [sum(expected)]):
            kind = "a list of tensors" if several else "one tensor"
            raise ValueError(
                f"`inputs` must be one tensor of width {sum(expected)} or a list of "
                f"tensors of widths {expected}, as in `segment_sizes`. Received: "
                f"{kind} of width {found}."
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: Any = None) -> Any:
        """Returns the input with the columns scaled by the mask."""
        base.require_floating("inputs", inputs)
        mask = tf.cast(self._mask(training), self.compute_dtype)  # [sum of widths]
        if self.size_penalty:
            self.add_loss(self.size_penalty * self._expected_width())
        if not isinstance(inputs, (list, tuple)):
            return inputs * mask
        if len(inputs) == 1:
            return [inputs[0] * mask]
        parts = tf.split(mask, list(self.widths))
        return [x * part for x, part in zip(inputs, parts, strict=True)]

    def _segment_of_column(self) -> np.ndarray:
        """Returns the index of every column's segment, `[sum of widths]`."""
        return np.repeat(np.arange(len(self.widths)), self.widths)

    def _mask(self, training: Any) -> tf.Tensor:
        """Returns the mask of a call."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `_mask`.")

    def _selected_mask(self) -> tf.Tensor:
        """Returns the mask of the columns that the search has chosen."""
        return self._mask(training=False)

    def _expected_width(self) -> tf.Tensor:
        """Returns the number of columns that are kept on average, a scalar."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `_expected_width`.")

    def probabilities(self) -> dict[str, list[float]]:
        """Returns the probabilities of each segment's choices, without noise."""
        raise NotImplementedError(f"`{type(self).__name__}` has no `probabilities`.")

    def selected_dims(self) -> dict[str, list[int]]:
        """Returns segment -> the columns that the search keeps."""
        kept = np.asarray(self._selected_mask()) > 0
        by_segment = np.split(kept, np.cumsum(self.widths)[:-1])
        return {
            name: np.flatnonzero(segment).tolist()
            for name, segment in zip(self.segment_names, by_segment, strict=True)
        }

    def selected_sizes(self) -> dict[str, int]:
        """Returns segment -> the number of columns that the search keeps."""
        return {name: len(dims) for name, dims in self.selected_dims().items()}

    def export_selection(self, path: str | os.PathLike[str]) -> None:
        """Writes sizes, columns and probabilities to a JSON file.

        Args:
          path: The file; an existing one is replaced.
        """
        selection = {
            "selected_sizes": self.selected_sizes(),
            "selected_dims": self.selected_dims(),
            "probabilities": self.probabilities(),
        }
        with tf.io.gfile.GFile(os.fspath(path), "w") as file:
            file.write(json.dumps(selection, indent=1) + "\n")

    def summary_line(self) -> str:
        """Returns what is kept of each segment, as `user: 8/16 | item: 0/32`."""
        return search_report.line(self.selected_sizes(), self.widths)

    def write_summaries(self, step: Any = None) -> None:
        """Writes a TensorBoard histogram and the kept columns of every segment.

        Args:
          step: The global step; None uses the step of `tf.summary`.
        """
        search_report.write(
            self.name, self.selected_sizes(), self.probabilities(), step
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that these layers share."""
        return super().get_config() | {
            "segment_names": list(self.segment_names),
            "temperature": self.temperature,
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "size_penalty": self.size_penalty,
        }


class ChoiceNASLayer(NASLayer):
    """A search whose segments have logits `alpha/<name>`, one for each choice.

        w = self._weights(alpha, G)    # [segments, most choices]; G: Gumbel noise
        mask = self._mask_of(w)

    A subclass defines `_weights` and `_mask_of`.

    Args:
      segment_names: See `NASLayer`.
      widths: See `NASLayer`.
      choices: Number of choices of each segment.
      draws: Whether training adds noise to the logits.
      **kwargs: Other arguments of `NASLayer`.
    """

    def __init__(
        self,
        segment_names: Sequence[str],
        widths: Sequence[int],
        choices: Sequence[int],
        draws: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(segment_names, widths, **kwargs)
        self.choices = list(choices)
        self._draws = draws

    def build(self, input_shape: Any) -> None:
        """Adds the logits."""
        self.alphas = [
            self._add_alpha(i, f"alpha/{name}", length)
            for i, (name, length) in enumerate(
                zip(self.segment_names, self.choices, strict=True)
            )
        ]
        super().build(input_shape)

    def weights_of_choices(self, training: Any = False) -> tf.Tensor:
        """Returns the weights `w`, `[segments, most choices]`.

        Args:
          training: Whether to draw, as in training.
        """
        logits = self._logits()
        return modes.choose(
            modes.is_training(training) if self._draws else False,
            lambda: self._weights(logits, self._noise()),
            lambda: self._weights(logits, None),
        )

    def _weights(self, logits: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
        """Returns the weights `w`.

        Args:
          logits: `[segments, most choices]`.
          noise: The same shape; None outside training, or if the search does not draw.
        """
        raise NotImplementedError(f"`{type(self).__name__}` defines no `_weights`.")

    def _mask_of(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns the mask made by weights of the choices, or by probabilities."""
        raise NotImplementedError(f"`{type(self).__name__}` defines no `_mask_of`.")

    def _mask(self, training: Any) -> tf.Tensor:
        return self._mask_of(self.weights_of_choices(training))

    def _expected_width(self) -> tf.Tensor:
        return tf.reduce_sum(self._mask_of(self._softmax(self._logits())))

    def _softmax(self, logits: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the probabilities of the choices, `[segments, most choices]`."""
        noisy = logits if noise is None else logits + noise
        return tf.nn.softmax(noisy / self.temperature)

    def _noise(self) -> tf.Tensor:
        """Draws Gumbel noise for every logit."""
        return self._matrix(self._gumbel([sum(self.choices)]))

    def _logits(self) -> tf.Tensor:
        """Returns `alpha`, `[segments, most choices]`, padded with `_NEVER`."""
        return self._matrix(
            tf.concat([tf.convert_to_tensor(a) for a in self.alphas], axis=0)
        )

    def _matrix(self, flat: tf.Tensor) -> tf.Tensor:
        """Arranges the values of all choices in one row per segment."""
        lengths = np.asarray(self.choices)
        places = np.arange(lengths.max())[np.newaxis, :]  # [1, most choices]
        starts = np.cumsum(lengths) - lengths
        index = np.where(
            places < lengths[:, np.newaxis],
            starts[:, np.newaxis] + places,
            lengths.sum(),
        )
        # The gradient of `gather_nd` is dense.
        return tf.gather_nd(tf.concat([flat, [_NEVER]], axis=0), index[..., np.newaxis])

    def probabilities(self) -> dict[str, list[float]]:
        """See base class."""
        rows = self._softmax(self._logits()).numpy()
        return {
            name: row[:length].tolist()
            for name, row, length in zip(
                self.segment_names, rows, self.choices, strict=True
            )
        }


def _check_names(names: Sequence[str], count: int) -> list[str]:
    """Returns the names; `ValueError` unless all are set and different."""
    if isinstance(names, str) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(
            "`segment_names` must be a list of non-empty strings. "
            f"Received: segment_names={names!r}."
        )
    if not names or len(set(names)) != len(names) or len(names) != count:
        raise ValueError(
            "`segment_names` must be unique and have one entry per entry of "
            f"`segment_sizes`, at least one. Received: segment_names={list(names)}, "
            f"{count} segment_sizes."
        )
    return list(names)


def check_sizes(sizes: Sequence[int]) -> list[int]:
    """Returns `segment_sizes` as a list; `ValueError` if one is below 1."""
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise ValueError(
            f"`segment_sizes` must be a list of widths. Received: {sizes!r}."
        )
    for size in sizes:
        base.require_positive("segment_sizes", size)
    return [int(size) for size in sizes]
