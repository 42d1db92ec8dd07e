"""Lists of different lengths in a tensor of one width."""

from typing import NamedTuple

from monolith_tf.types import RaggedTensor
from monolith_tf.types import Tensor


class Padded(NamedTuple):
    """Lists, of which the first entries count.

    Serving requests bring lists so. To make them ragged takes longer than to pool them
    as they are.

    Attributes:
      values: `[batch, width]`.
      lengths: How many count, `[batch]`, int64, from 0 to `width`.
    """

    values: Tensor
    lengths: Tensor

    def to_ragged(self) -> RaggedTensor:
        """Returns the entries that count."""
        import tensorflow as tf

        return tf.RaggedTensor.from_tensor(self.values, lengths=self.lengths)

    def mask(self) -> Tensor:
        """Which entries count, `[batch, width]`, bool."""
        import tensorflow as tf

        width = self.values.shape[1] or tf.shape(self.values)[1]
        return tf.sequence_mask(self.lengths, width)

    def cut(self, width: int) -> "Padded":
        """Returns lists of which the first `width` entries count at most."""
        import tensorflow as tf

        return self._replace(lengths=tf.minimum(self.lengths, width))

    def resized(self, width: int) -> "Padded":
        """Returns `cut(width)`, cut off or filled up with zeros at that width."""
        import tensorflow as tf

        values = self.values[:, :width]
        missing = width - tf.shape(values)[1]
        values = tf.pad(values, [[0, 0], [0, missing]])
        return self.cut(width)._replace(values=tf.ensure_shape(values, [None, width]))
