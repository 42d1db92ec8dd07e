"""The signature for one user and many items."""

from collections.abc import Collection
from collections.abc import Mapping
from typing import Literal

import numpy as np
import tensorflow as tf

from monolith_tf.export import signatures
from monolith_tf.export.named_inputs import NamedInputs
from monolith_tf.features.columns import ColumnType
from monolith_tf.types import Tensor

KEY = "candidates"


class Candidates(signatures.Signature):
    """Raw features by name: one row of the user's, and one for each item.

    Args:
      columns: The raw columns.
      lists: As in `NamedInputs`.
      user_columns: The user's columns, as `user_columns.find` returns them.
      answer: Answers columns of different numbers of rows.
    """

    joins_rows = False

    def __init__(
        self,
        columns: Mapping[str, ColumnType],
        lists: Literal["padded", "values"],
        user_columns: Collection[str],
        answer: signatures.Answer,
    ) -> None:
        user = {name: kind for name, kind in columns.items() if name in user_columns}
        items = {name: kind for name, kind in columns.items() if name not in user}
        self._user = NamedInputs(user, lists)
        self._items = NamedInputs(items, lists)
        self._user_columns = tuple(user)
        self._answer = answer
        self.specs = {**self._user.specs(batch=1), **self._items.specs()}

    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        return self._answer(
            {**self._user.decode(tensors), **self._items.decode(tensors)}
        )

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class; the first row's user, and all rows' items."""
        user = {name: sample[name][:1] for name in self._user_columns}
        return {**self._user.encode(user), **self._items.encode(sample)}

    def expected(
        self, sample: Mapping[str, Tensor], answer: signatures.Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        first = tf.zeros([signatures.num_rows(sample)], tf.int32)
        repeated = {
            name: tf.gather(value, first) if name in self._user_columns else value
            for name, value in sample.items()
        }
        return signatures.numpy_answer(answer, repeated)
