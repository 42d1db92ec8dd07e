"""Lookups of a frozen store, group by group, and their results."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.frozen.group import FrozenGroup
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.padded import Padded
from monolith_tf.types import Nest
from monolith_tf.types import Tensor


class Found(NamedTuple):
    """The result of a lookup in a frozen store.

    Attributes:
      rows: Feature -> slice name -> its rows: `[batch, dim]`; for lists `[total, dim]`,
        or `[batch, width, dim]` with zeros for padding.
      lists: Feature -> row splits, or the padded lists; None for one id per example.
    """

    rows: dict[str, dict[str, Tensor]]
    lists: dict[str, Nest]


class Piece(NamedTuple):
    """One lookup in one group.

    Attributes:
      frozen: The group.
      columns: All columns with one id per example, or one column of lists.
      slots: Slots of their tables, `[columns, 1]`; a scalar for lists.
      asked: Feature ids, or values for the group's index: `[columns, batch]`; for lists
        `[total]` or `[batch, width]`.
      lists: As in `Found`.
    """

    frozen: FrozenGroup
    columns: Sequence[ColumnSpec]
    slots: np.ndarray
    asked: Tensor
    lists: Nest

    def read(self) -> Iterable[tuple[str, dict[str, Tensor]]]:
        """Returns pairs of a feature and its rows, by slice name."""
        index = self.frozen.index
        numbers = index.find(index.keys(self.slots, self.asked))
        if isinstance(self.lists, Padded):
            numbers *= tf.cast(self.lists.mask(), numbers.dtype)
        slices = self.frozen.read(numbers)
        if self.lists is not None:
            return [(self.columns[0].feature, slices)]
        by_column = zip(*map(tf.unstack, slices.values()), strict=True)
        return [
            (column.feature, dict(zip(slices, rows, strict=True)))
            for column, rows in zip(self.columns, by_column, strict=True)
        ]


def read(pieces: Iterable[Piece]) -> Found:
    """Reads the rows of all pieces."""
    found = Found({}, {})
    for piece in pieces:
        for feature, rows in piece.read():
            found.rows[feature] = rows
            found.lists[feature] = piece.lists
    return found
