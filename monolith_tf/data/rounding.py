"""Notices numbers of a file that become one as float32."""

import pyarrow as pa
import pyarrow.compute as pc
from absl import logging


class Look:
    """Looks at the first numbers of each column, once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def is_due(self, column: str) -> bool:
        """Whether a column has yet to show two numbers."""
        return column not in self._seen

    def at(self, file: str, column: str, values: pa.Array) -> None:
        """Logs a warning if float32 leaves at most half of the numbers different.

        Args:
          file: Where they are, for the warning.
          column: Name of the column; what was looked at is not looked at again.
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
