"""Strings as indices into a dictionary, hashed once for many rows."""

import typing

import tensorflow as tf

from monolith_tf import ids
from monolith_tf.types import RaggedTensor
from monolith_tf.types import Tensor


class StringCodes(tf.experimental.ExtensionType):
    """A column of strings, as indices into a dictionary with hashes.

    Copying strings into batches is the largest cost of reading them, while ids need
    only their hashes. `FeatureEncoder` and `encode_labels` accept this in place of a
    string tensor and return the same.

    Attributes:
      codes: Indices into the dictionary, int32, `[batch]` or ragged `[batch, None]`.
      dictionary: The strings.
      hashed: `ids.from_strings` of the dictionary.
    """

    codes: typing.Union[tf.Tensor, tf.RaggedTensor]  # noqa: UP007 (TensorFlow reads it)
    dictionary: tf.Tensor
    hashed: tf.Tensor

    def strings(self) -> Tensor | RaggedTensor:
        """Returns the strings."""
        return _gather(self.dictionary, self.codes)

    def hashes(self) -> Tensor | RaggedTensor:
        """Returns the 48-bit hashes of the strings, int64."""
        return _gather(self.hashed, self.codes)


def string_codes(codes: Tensor | RaggedTensor, dictionary: Tensor) -> StringCodes:
    """Returns a column of codes, with the hashes of their dictionary."""
    return StringCodes(codes, dictionary, ids.from_strings(dictionary))


def _gather(values: Tensor, codes: Tensor | RaggedTensor) -> Tensor | RaggedTensor:
    if isinstance(codes, tf.RaggedTensor):
        return codes.with_flat_values(tf.gather(values, codes.flat_values))
    return tf.gather(values, codes)
