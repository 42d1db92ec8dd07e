"""Lists of different lengths, padded to one width."""

from typing import NamedTuple

from monolith_tf.types import RaggedTensor
from monolith_tf.types import Tensor


class Padded(NamedTuple):
    """Lists padded to one width, with their lengths.

    Serving requests contain lists in this form. Pooling them directly is faster than
    converting them to ragged tensors.

    Attributes:
      values: `[batch, width]`.
      lengths: Number of valid entries, `[batch]`, int64, from 0 to `width`.
    """

    values: Tensor
    lengths: Tensor

    def to_ragged(self) -> RaggedTensor:
        """Returns the valid entries."""
        import tensorflow as tf

        return tf.RaggedTensor.from_tensor(self.values, lengths=self.lengths)

    def mask(self) -> Tensor:
        """Returns which entries are valid, `[batch, width]`, bool."""
        import tensorflow as tf

        width = self.values.shape[1] or tf.shape(self.values)[1]
        return tf.sequence_mask(self.lengths, width)

    def cut(self, width: int) -> "Padded":
        """Returns the lists with at most their first `width` entries valid."""
        import tensorflow as tf

        return self._replace(lengths=tf.minimum(self.lengths, width))

    def resized(self, width: int) -> "Padded":
        """Returns `cut(width)`, truncated or padded with zeros to that width."""
        import tensorflow as tf

        values = self.values[:, :width]
        missing = width - tf.shape(values)[1]
        values = tf.pad(values, [[0, 0], [0, missing]])
        return self.cut(width)._replace(values=tf.ensure_shape(values, [None, width]))
