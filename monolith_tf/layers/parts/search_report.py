"""Reports of layers that search for widths."""

from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.types import Tensor


def line(sizes: Mapping[str, int], widths: Sequence[int]) -> str:
    """Returns what is kept of each feature, as `user: 8/16 | item: 0/32`.

    Args:
      sizes: Feature -> number of columns that are kept.
      widths: Number of columns of each feature, in the same order.
    """
    return " | ".join(
        f"{name}: {size}/{width}"
        for (name, size), width in zip(sizes.items(), widths, strict=True)
    )


def write(
    layer: str,
    sizes: Mapping[str, int],
    probabilities: Mapping[str, Sequence[float]],
    step: Tensor,
) -> None:
    """Writes a TensorBoard histogram and the kept columns of every feature.

    Args:
      layer: The layer's name, the prefix of the tags.
      sizes: As in `line`.
      probabilities: Feature -> probabilities of its choices.
      step: The global step; None uses the step of `tf.summary`.
    """
    for name, values in probabilities.items():
        tag = f"{layer}/{name}"
        tf.summary.histogram(f"{tag}/probabilities", values, step=step)
        tf.summary.scalar(f"{tag}/selected_size", sizes[name], step=step)
