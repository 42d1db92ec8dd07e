"""Strings as places in a dictionary, hashed once for many rows."""

import typing

import tensorflow as tf

from monolith_tf import ids
from monolith_tf.types import RaggedTensor
from monolith_tf.types import Tensor


class StringCodes(tf.experimental.ExtensionType):
    """A column of strings that have been hashed in the dictionary they come from.

    Copying strings into batches costs more than all else in reading them, and ids need
    their hashes only. `FeatureEncoder` and `encode_labels` take this in place of a
    tensor of strings, and give the same.

    Attributes:
      codes: Places in the dictionary, int32, `[batch]` or ragged.
      dictionary: The strings.
      hashed: `ids.from_strings` of the dictionary.
    """

    codes: typing.Union[tf.Tensor, tf.RaggedTensor]  # noqa: UP007 (read by TensorFlow)
    dictionary: tf.Tensor
    hashed: tf.Tensor

    @classmethod
    def of(cls, codes: Tensor | RaggedTensor, dictionary: Tensor) -> "StringCodes":
        """Returns a column of codes, hashing their dictionary."""
        return cls(codes, dictionary, ids.from_strings(dictionary))

    def strings(self) -> Tensor | RaggedTensor:
        """Returns the strings."""
        return tf.gather(self.dictionary, self.codes)

    def hashes(self) -> Tensor | RaggedTensor:
        """Returns the 48-bit hashes of the strings, int64."""
        return tf.gather(self.hashed, self.codes)
