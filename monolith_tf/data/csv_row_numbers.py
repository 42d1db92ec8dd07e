"""Numbers the rows of a CSV file from 0, including those that the parser skips."""

from typing import Any

import numpy as np

from monolith_tf.data import csv_lines
from monolith_tf.data.reader import BadRow

_BLANK = "Blank lines are ignored only at the end of a file."


class RowNumbers:
    """Numbers rows in the order of the file.

    The parser counts malformed rows, but not the blank lines in `lines`.

    Args:
      malformed: Rows skipped so far; the parser appends a row before it returns any row
        after it.
      first: The parser's number of the first row after the header.
      lines: The blank and broken lines of the file.
    """

    def __init__(
        self, malformed: list[Any], first: int, lines: csv_lines.Lines
    ) -> None:
        self._malformed = malformed
        self._first = first
        self._seen = 0
        self._lines = lines
        # Number of rows that the parser counts before each blank line.
        self._blank_after = lines.blank - np.arange(len(lines.blank))
        self._num_blank = 0
        self._num_parsed = 0

    def take(self, num: int, rest: bool = False) -> tuple[np.ndarray, list[BadRow]]:
        """Returns the numbers of the next `num` rows, and the bad ones among them.

        Args:
          num: Rows that the parser returned.
          rest: Whether to also return the bad rows after them.
        """
        parts = [np.empty(0, np.int64)]
        bad: list[BadRow] = []
        while num or (rest and self._seen < len(self._malformed)):
            gap = num
            if self._seen < len(self._malformed):
                row = self._malformed[self._seen]
                gap = row.number - self._first - self._num_parsed
            if gap > 0:
                taken = min(gap, num)
                parsed = np.arange(self._num_parsed, self._num_parsed + taken)
                parts.append(self._numbers(parsed))
                self._num_parsed += taken
                num -= taken
            else:
                bad.append(self._bad(self.next_row, row))
                self._num_parsed += 1
                self._seen += 1
        last = np.searchsorted(self._blank_after, self._num_parsed)
        for blank in self._lines.blank[self._num_blank : last].tolist():
            bad.append(BadRow(blank, "a blank line", _BLANK))
        self._num_blank = max(self._num_blank, int(last))
        return np.concatenate(parts), bad

    @property
    def next_row(self) -> int:
        """The number of the row after those returned so far."""
        return int(self._numbers(np.array([self._num_parsed]))[0])

    def _numbers(self, parsed: np.ndarray) -> np.ndarray:
        """Returns the numbers of rows, from their places among the parser's rows."""
        return parsed + np.searchsorted(self._blank_after, parsed, side="right")

    def _bad(self, number: int, row: Any) -> BadRow:
        """Returns a row that the parser skipped."""
        if number in self._lines.spoilt:
            return BadRow(number, self._lines.spoilt[number], csv_lines.CLOSE)
        return BadRow(
            number,
            f"{row.actual_columns} cells instead of {row.expected_columns}",
        )
