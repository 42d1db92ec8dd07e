"""Finds lines of a CSV file that the parser would drop silently.

The parser skips blank lines, and reads all lines from an unclosed quote up to the next
quote, or to the end of the file, as one cell.
"""

import dataclasses
import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

CLOSE = "Close the quote, or double it if it is part of the text."
"""What to do about a spoilt row."""

_CHUNK_BYTES = 1 << 22
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"(?:(?<=\n)|(?<=\r)(?!\n))(?:\r\n|\r|\n)")
_REST_OF_CELL = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')


@dataclasses.dataclass(frozen=True)
class Lines:
    """The blank and broken lines of a file. Rows count from 0, including blank ones.

    Attributes:
      has_quotes: Whether any cell may be quoted.
      blank: Rows that are blank lines, int64 [rows], rising; without those at the end.
      num_last_blank: Number of blank lines at the end of the file.
      spoilt: Row -> the problem of a quote that opens in it and is never closed, or is
        closed lines below in the middle of a cell.
    """

    has_quotes: bool
    blank: np.ndarray
    num_last_blank: int
    spoilt: Mapping[int, str]


NOTHING_AMISS = Lines(True, np.empty(0, np.int64), 0, {})
"""For a file that was not scanned."""


def scan(open_: Callable[[], BinaryIO], delimiter: str, has_header: bool) -> Lines:
    """Reads a file and returns its blank and broken lines.

    Args:
      open_: Opens the file, decompressed.
      delimiter: The character between cells.
      has_header: Whether the first line that is not blank is a header.
    """
    with open_() as stream:
        has_quotes, is_simple = _first_look(_chunks(stream), delimiter)
    if is_simple:
        return Lines(has_quotes, np.empty(0, np.int64), 0, {})
    scanner = _Scanner(delimiter)
    with open_() as stream:
        for chunk in _chunks(stream):
            scanner.take(chunk)
    return scanner.lines(has_quotes, has_header)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yields a file in chunks that split neither doubled quotes nor CR LF."""
    chunk = stream.read(_CHUNK_BYTES).removeprefix(_BYTE_ORDER_MARK)
    while chunk:
        while chunk.endswith((b'"', b"\r")) and (more := stream.read(1)):
            chunk += more
        yield chunk
        chunk = stream.read(_CHUNK_BYTES)


def _first_look(chunks: Iterator[bytes], delimiter: str) -> tuple[bool, bool]:
    """Returns whether a file has quotes, and whether it is certainly without problems.

    This is much faster than numbering the lines.
    """
    before = _ends(delimiter)
    fine = re.compile(
        rb'(?:[^"]++|(?<![' + before + rb'])"'
        rb'|"[^"]*+(?:""[^"]*+)*+"(?=[' + before + rb"])"
        rb'|"[^"\r\n]*+(?:""[^"\r\n]*+)*+")*+'
    )
    has_quotes = False
    begin, rest = b"\n", b""  # The byte before; a cell that is not closed yet.
    for chunk in chunks:
        if _may_have_blank(begin[-1:] + rest[-1:] + chunk):
            return True, False
        rest += chunk
        if rest.find(b'"') < 0:
            begin, rest = rest[-1:], b""
            continue
        has_quotes = True
        found = fine.match(begin + rest, len(begin))
        end = found.end() - len(begin) if found else 0
        if len(rest) - end > _CHUNK_BYTES:
            return True, False
        begin, rest = (begin + rest[:end])[-1:], rest[end:]
    return has_quotes, not rest


def _may_have_blank(chunk: bytes) -> bool:
    """Returns whether there are two adjacent line ends, perhaps within a cell."""
    codes = np.frombuffer(chunk, np.uint8)
    ends = codes == ord("\n")
    if chunk.find(b"\r") >= 0:
        returns = codes == ord("\r")
        pairs = (ends | returns)[:-1] & (ends | returns)[1:]
        return bool((pairs & ~(returns[:-1] & ends[1:])).any())
    return bool((ends[:-1] & ends[1:]).any())


def _ends(delimiter: str) -> bytes:
    """Returns the bytes that end a cell, escaped for a regular expression's set."""
    return re.escape(delimiter.encode()) + rb"\r\n"


class _Scanner:
    """Scans a file chunk by chunk.

    Args:
      delimiter: The character between cells.
    """

    def __init__(self, delimiter: str) -> None:
        before = _ends(delimiter)  # A quote after it opens a cell.
        self._ends_cell = frozenset(delimiter.encode() + b"\r\n")
        # Up to a quoted cell that spans lines, or continues in the next chunk.
        self._outside = re.compile(
            rb'(?:[^"]++|(?<![' + before + rb'])"'
            rb'|"[^"\r\n]*+(?:""[^"\r\n]*+)*+")*+'
        )
        self._last = b"\n"  # The last byte of the chunk before.
        self._line = 0
        self._opened: int | None = None  # The line of the quote that is open.
        self._inside = 0  # The number of line ends in its cell.
        self._blank: list[int] = []
        self._spoilt: dict[int, str] = {}

    def take(self, chunk: bytes) -> None:
        """Scans the next chunk."""
        chunk = self._last + chunk
        place = 1
        while place < len(chunk):
            if self._opened is None:
                place = self._take_outside(chunk, place)
            else:
                place = self._take_inside(chunk, place)
        self._last = chunk[-1:]

    def lines(self, has_quotes: bool, has_header: bool) -> Lines:
        """Returns the findings, after the last chunk."""
        if self._opened is not None:
            below = self._inside - (self._last in b"\r\n")
            self._spoilt[self._opened] = (
                "the quote that opens a cell is never closed, and the cell includes "
                f"all {below} lines below"
            )
        is_cut = self._opened is not None or self._last not in b"\r\n"
        end, blank = self._line + is_cut, self._blank
        while blank and blank[-1] == end - 1:
            end -= 1
            blank.pop()
        first = 0
        if has_header:
            while first < len(blank) and blank[first] == first:
                first += 1
        skipped = first + has_header
        return Lines(
            has_quotes=has_quotes,
            blank=np.array(blank[first:], np.int64) - skipped,
            num_last_blank=self._line + is_cut - end,
            spoilt={row - skipped: reason for row, reason in self._spoilt.items()},
        )

    def _take_outside(self, chunk: bytes, place: int) -> int:
        """Scans up to a cell of several lines, or to the end of the chunk."""
        end = len(chunk)
        if chunk.find(b'"', place) >= 0:
            found = self._outside.match(chunk, place)
            end = found.end() if found else place
        for blank in _BLANK.finditer(chunk, place, end):
            self._line += _num_ends(chunk, place, blank.start())
            place = blank.start()
            self._blank.append(self._line)
        self._line += _num_ends(chunk, place, end)
        if end < len(chunk):
            self._opened, self._inside = self._line, 0
        return end + 1

    def _take_inside(self, chunk: bytes, place: int) -> int:
        """Scans up to the quote that closes the cell, or to the end of the chunk."""
        found = _REST_OF_CELL.match(chunk, place)
        end = len(chunk) if found is None else found.end()
        self._inside += _num_ends(chunk, place, end)
        if found is None:
            return end
        is_last = end == len(chunk) or chunk[end] in self._ends_cell
        if self._inside and not is_last:
            self._spoilt[self._opened or 0] = (
                f"the quote that opens a cell includes {self._inside} lines below, and "
                "the next quote does not end the cell"
            )
        self._opened = None
        return end


def _num_ends(chunk: bytes, begin: int, end: int) -> int:
    """Returns how many lines end in a part of a chunk."""
    num = chunk.count(b"\n", begin, end)
    if chunk.find(b"\r", begin, end) >= 0:
        num += chunk.count(b"\r", begin, end) - chunk.count(b"\r\n", begin, end)
    return num
