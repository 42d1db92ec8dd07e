"""Cleans a block of rows: types, defaults, and which rows are bad."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from monolith_tf.data import arrow
from monolith_tf.data import rounding
from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.features.columns import ColumnType


class Clean(NamedTuple):
    """The good rows of a block, and the bad ones.

    Attributes:
      table: The good rows.
      rows: Their numbers, int64 [rows].
      keys: Their key columns as read.
      bad: The bad rows, by number.
      filled: Column -> number of good rows that got its default, if any.
    """

    table: pa.Table
    rows: np.ndarray
    keys: pa.Table
    bad: list[BadRow]
    filled: dict[str, int]


def clean(
    block: Block,
    columns: Mapping[str, ColumnType],
    keys: list[str],
    look: rounding.Look,
    place: str,
) -> Clean:
    """Cleans a block.

    Args:
      block: The block.
      columns: The columns to clean.
      keys: Columns to return as read.
      look: Looks for rounded numbers.
      place: Where the block is from, for errors.

    Raises:
      ValueError: If a column's type cannot be read as the wanted one.
    """
    read, rows = block.table, block.rows
    bad = list(block.bad)
    try:
        filled = arrow.defaulted(read, columns)
        table, problems = arrow.clean(read, columns)
    except (ValueError, pa.ArrowException) as error:
        raise ValueError(f"{place}: {error}") from error
    for name, type_ in columns.items():
        is_rounded = type_.dtype == "float32" or type_.is_rounded
        if is_rounded and look.is_due(name):
            look.at(place, name, arrow.numbers(read, name))
    kept = read.select(keys)
    fine = np.ones(len(rows), bool)
    for mask, reason in problems:
        places = np.flatnonzero(mask & fine).tolist()
        bad += [BadRow(int(rows[index]), reason(index)) for index in places]
        fine &= ~mask
    num_filled = {name: int((mask & fine).sum()) for name, mask in filled.items()}
    num_filled = {name: num for name, num in num_filled.items() if num}
    if not fine.all():
        table, rows = table.filter(pa.array(fine)), rows[fine]
        kept = kept.filter(pa.array(fine))
    bad.sort(key=lambda one: one.row)
    return Clean(table, rows, kept, bad, num_filled)
