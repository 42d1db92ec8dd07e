"""Sequence masks and ragged sequences."""

import tensorflow as tf

from monolith_tf.types import Nest
from monolith_tf.types import Tensor


def dense_sequence(
    name: str, sequence: Tensor, mask: Nest = None, position: int = 0
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns a sequence as a dense tensor with its mask.

    Args:
      name: The sequence's argument name, for errors.
      sequence: `[batch, time, ...]`, or a ragged tensor with ragged time.
      mask: `[batch, time]`, None, or the list of masks that Keras makes when a layer is
        called on a list. A numeric mask is valid where it is at least 1.
      position: The sequence's index in such a list.

    Returns:
      The sequence, zero at masked steps and after the end of a ragged row, so that no
      value of a masked step, not even NaN, reaches a result or a gradient; and a bool
      mask or None.

    Raises:
      ValueError: If a ragged sequence comes with a mask.
    """
    if isinstance(mask, (list, tuple)):
        mask = mask[position]
    if isinstance(sequence, tf.RaggedTensor):
        if mask is not None:
            raise ValueError(
                f"`mask` must be None when `{name}` is ragged, since its row lengths "
                f"are the mask. Received: mask={mask}."
            )
        dense = sequence.to_tensor()
        return dense, tf.sequence_mask(sequence.row_lengths(), tf.shape(dense)[1])
    if mask is None:
        return sequence, None
    mask = tf.convert_to_tensor(mask)
    if not mask.dtype.is_bool:
        mask = mask >= tf.cast(1, mask.dtype)
    sequence = tf.convert_to_tensor(sequence)
    valid = mask  # [batch, ..., time], and of a sequence [batch, ..., time, dim]
    if sequence.shape.rank > mask.shape.rank:
        shape = tf.shape(mask)
        between = [1] * (sequence.shape.rank - mask.shape.rank - 1)
        valid = tf.reshape(
            mask, tf.concat([shape[:-1], between, shape[-1:], [1]], axis=0)
        )
    return tf.where(valid, sequence, tf.zeros_like(sequence)), mask
