"""Warns if different numbers of a column become equal in float32."""

import pyarrow as pa
import pyarrow.compute as pc
from absl import logging


class Look:
    """Checks the first numbers of each column, once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def is_due(self, column: str) -> bool:
        """Returns whether a column has not been checked yet."""
        return column not in self._seen

    def at(self, file: str, column: str, values: pa.Array) -> None:
        """Logs a warning if at most half of the numbers stay distinct in float32.

        Args:
          file: Name of the file, for the warning.
          column: Name of the column. Once two distinct numbers have been checked, it is
            not checked again.
          values: Numbers of any type.
        """
        of = values.type
        has_more_bits = (
            pa.types.is_float64(of)
            or pa.types.is_integer(of)
            or pa.types.is_decimal(of)
        )
        if not has_more_bits or not self.is_due(column):
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
