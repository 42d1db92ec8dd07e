"""Warns if different numbers of a column become equal in float32."""

import collections

import pyarrow as pa
import pyarrow.compute as pc
from absl import logging

_MOST_BLOCKS = 16  # So that a constant column does not slow down all reading.


class Look:
    """Checks the first numbers of each column, once."""

    def __init__(self) -> None:
        self._blocks: collections.Counter[str] = collections.Counter()
        self._seen: set[str] = set()

    def is_due(self, column: str) -> bool:
        """Returns whether to check this block of a column; call once per block."""
        if column in self._seen:
            return False
        self._blocks[column] += 1
        return self._blocks[column] <= _MOST_BLOCKS

    def at(self, file: str, column: str, values: pa.Array) -> None:
        """Logs a warning if at most half of the numbers stay distinct in float32.

        Args:
          file: Name of the file, for the warning.
          column: Name of the column. Once two distinct numbers have been checked, or
            16 blocks without two, it is not checked again.
          values: Numbers of any type.
        """
        of = values.type
        has_more_bits = (
            pa.types.is_float64(of)
            or pa.types.is_integer(of)
            or pa.types.is_decimal(of)
        )
        if not has_more_bits:
            self._seen.add(column)
            return
        num = pc.count_distinct(values).as_py()
        if num < 2:
            return
        self._seen.add(column)
        rounded = pc.cast(values, pa.float32(), safe=False)
        left = pc.count_distinct(rounded).as_py()
        if 2 * left <= num:
            logging.warning(
                "%s: column `%s` is used as float32, and of its first %d different "
                "numbers %d are left. Subtract a constant from it, or write integers "
                "and a transform: `zscore` and others take these as they are.",
                file,
                column,
                num,
                left,
            )
