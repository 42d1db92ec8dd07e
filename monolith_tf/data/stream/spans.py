"""Spans of a topic: what is trained on together, kept on disk before it is.

A span holds one range of offsets per partition. Spans are numbered from 0, and each
begins where the one before ends. Since they are on disk before any worker reads them, a
job that resumes from a checkpoint reads the same messages in the same batches.
"""

import itertools
import json
import os
import pathlib
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

from absl import logging

from monolith_tf.data.stream.events import OffsetRange

_SEGMENT_SPANS = 50_000


class Span(NamedTuple):
    """Messages that are trained on together.

    Attributes:
      number: Its number, from 0.
      ranges: One range per partition that has messages in it.
    """

    number: int
    ranges: tuple[OffsetRange, ...]


class SpanLog:
    """The spans of a job, in files of JSON lines with a checksum each."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Opens the log, and removes a line that was not written to its end.

        Args:
          folder: Folder of the files; made if it does not exist.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._size = 0  # Spans in the last file.
        self._last: pathlib.Path | None = None

    def resume(self, number: int, offsets: Mapping[int, int]) -> list[Span]:
        """Returns the spans from a position on, and continues the log after them.

        Spans that do not continue at the position are removed: the job went back to
        other offsets, or a file is damaged.

        Args:
          number: Number of the next span.
          offsets: Partition -> next offset.
        """
        kept: list[Span] = []
        positions = dict(offsets)

        def is_next(span: Span) -> bool:
            if span.number < number:
                return True
            if span.number != number + len(kept) or not _continues(span, positions):
                return False
            kept.append(span)
            positions.update({r.partition: r.end for r in span.ranges})
            return True

        self._keep_while(is_next)
        return kept

    def drop_from(self, number: int) -> None:
        """Removes the spans from a number on."""
        self._keep_while(lambda span: span.number < number)

    def _keep_while(self, is_kept: Callable[[Span], bool]) -> None:
        """Removes everything from the first span that is damaged or not kept."""
        paths = self._paths()
        for path in paths:
            lines = path.read_bytes().splitlines(keepends=True)
            good = 0
            for span in map(_parse, lines):
                if span is None or not is_kept(span):
                    break
                good += 1
            if good < len(lines):
                self._cut(path, lines[:good], paths)
                break
        self._last = None

    def append(self, spans: Sequence[Span]) -> None:
        """Adds spans; they are on disk when it returns."""
        if not spans:
            return
        if self._last is None or self._size >= _SEGMENT_SPANS:
            self._last = self._folder / f"spans-{spans[0].number:012d}.jsonl"
            self._size = 0
        with self._last.open("ab") as file:
            file.write(b"".join(map(_line, spans)))
            file.flush()
            os.fsync(file.fileno())
        if not self._size:
            _sync(self._folder)
        self._size += len(spans)

    def forget_before(self, number: int) -> None:
        """Removes files that hold only spans before a number."""
        paths = self._paths()
        for path, later in itertools.pairwise(paths):
            if _first(later) <= number:
                path.unlink()

    def _paths(self) -> list[pathlib.Path]:
        return sorted(self._folder.glob("spans-*.jsonl"))

    def _cut(
        self, path: pathlib.Path, lines: Iterable[bytes], paths: Sequence[pathlib.Path]
    ) -> None:
        """Removes everything after some lines of a file."""
        for later in paths[paths.index(path) + 1 :]:
            later.unlink()
        fresh = path.with_suffix(".tmp")
        with fresh.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync(self._folder)
        logging.info("%s: removed spans that are not complete or not used.", path)


def _continues(span: Span, positions: Mapping[int, int]) -> bool:
    return all(positions.get(r.partition, r.begin) == r.begin for r in span.ranges)


def _line(span: Span) -> bytes:
    text = json.dumps([span.number, [list(one) for one in span.ranges]])
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def _parse(line: bytes) -> Span | None:
    """Returns the span of a line; None if the line is damaged or not complete."""
    crc, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or crc != b"%08x" % zlib.crc32(text[:-1]):
        return None
    number, ranges = json.loads(text)
    return Span(number, tuple(OffsetRange(*one) for one in ranges))


def _first(path: pathlib.Path) -> int:
    return int(path.stem.removeprefix("spans-"))


def _sync(folder: pathlib.Path) -> None:
    """Makes new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
