"""Reads spans of a topic as windows of rows."""

import collections
import dataclasses
import time

import numpy as np
import pyarrow as pa
from absl import logging

from monolith_tf.data import arrow
from monolith_tf.data import cleaning
from monolith_tf.data import rounding
from monolith_tf.data.reader import BadRow
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.stream.events import EventLog
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.payloads import Messages
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.windows import Window
from monolith_tf.features.columns import ColumnType

_MOST_AHEAD_MS = 3_600_000


class SpanReader:
    """Reads the rows of spans; a row's file is its partition, its number its offset.

    Attributes:
      columns: The columns that are read.
      skip: Good rows of the next span to skip.
      bad_rows: Messages or rows skipped so far.
      missing: Offsets of spans read so far that had no message: the topic is compacted,
        or they mark transactions.
      num_messages: Messages read so far.
      newest: Time of the newest message read, in milliseconds since 1970; 0 if unknown.
    """

    def __init__(
        self,
        log: EventLog,
        data: DataSpec,
        columns: dict[str, ColumnType],
        *,
        skip: int = 0,
    ) -> None:
        """Makes a reader.

        Args:
          log: The topic.
          data: The description of the data.
          columns: The columns to read.
          skip: Good rows of the first span to skip.
        """
        if data.stream is None:
            raise ValueError("`data` describes no stream.")
        self._log = log
        self._stream = data.stream
        self.skip = skip
        self._skips = data.on_bad_row == "skip"
        self._messages = Messages(data.stream)
        self._look = rounding.Look()
        self.columns = columns
        self._read_columns = columns
        if self._stream.time_column is not None:
            # A row without a time is trained on, and scored in no window.
            time = ColumnType(dtype="int64", default=-1)
            self._read_columns = {self._stream.time_column: time} | columns
        self.bad_rows = 0
        self.missing = 0
        self.newest = 0
        # Totals, since a topic may never end.
        self._filled: collections.Counter[str] = collections.Counter()
        self.num_messages = 0
        self._num_rows = 0

    def read(self, span: Span) -> tuple[Window, list[Events]]:
        """Returns the rows of a span, and its messages.

        Raises:
          ValueError: At a bad row, unless these are skipped.
          StreamError: If the messages cannot be read.
        """
        tables, files, rows, times = [], [], [], []
        read = self._log.read(span.ranges)
        for events in read:
            partition = events.range.partition
            self._count(events)
            for block in self._messages.blocks(events, self._read_columns):
                place = f"{self._stream.topic}, partition {partition}"
                found = cleaning.clean(block, self._read_columns, [], self._look, place)
                if found.bad:
                    self._pass_over(partition, found.bad)
                filled = found.filled.items()
                self._filled.update({k: n for k, n in filled if k in self.columns})
                times.append(self._times(found.table, found.rows, events))
                tables.append(found.table.select(list(self.columns)))
                files.append(np.full(len(found.rows), partition, np.int32))
                rows.append(found.rows)
        self._num_rows += sum(map(len, rows))
        window = Window(
            span.number,
            _joined(tables, self.columns),
            np.concatenate([*files, np.zeros(0, np.int32)]),
            np.concatenate([*rows, np.zeros(0, np.int64)]),
            np.concatenate([*times, np.zeros(0, np.int64)]),
        )
        skip, self.skip = self.skip, 0
        if skip:
            window = dataclasses.replace(
                window,
                table=window.table.slice(skip),
                files=window.files[skip:],
                rows=window.rows[skip:],
                times=None if window.times is None else window.times[skip:],
            )
        return window, read

    def _times(self, table: pa.Table, rows: np.ndarray, events: Events) -> np.ndarray:
        """Returns the event time of each row, int64 [rows]."""
        if self._stream.time_column is None:
            return events.times[np.searchsorted(events.offsets, rows)]
        return table.column(self._stream.time_column).to_numpy()

    def no_rows(self, number: int = 0) -> Window:
        """Returns a window without rows."""
        table = _joined([], self.columns)
        places, offsets = np.zeros(0, np.int32), np.zeros(0, np.int64)
        return Window(number, table, places, offsets, times=offsets)

    def messages_of(self, rows: int) -> int:
        """Returns about how many messages hold a number of rows, at least 1."""
        if self._num_rows <= self.num_messages:  # One row each, but for bad ones.
            return rows
        return max(1, rows * self.num_messages // self._num_rows)

    def rows_of(self, messages: int) -> int:
        """Returns about how many rows some messages have, at least one each."""
        if self._num_rows <= self.num_messages:
            return messages
        return -(-messages * self._num_rows // self.num_messages)

    def counts(self) -> dict[str, int]:
        """Returns name -> count, as `Source.counts`."""
        return {
            "bad_rows": self.bad_rows,
            "missing_offsets": self.missing,
            **{
                f"defaults/{name}": self._filled[name]
                for name, type_ in self.columns.items()
                if type_.default is not None
            },
        }

    def _count(self, events: Events) -> None:
        self.num_messages += len(events.offsets)
        self.missing += events.range.end - events.range.begin - len(events.offsets)
        # A wrong time far ahead would hide how old the messages are.
        times = events.times[events.times <= time.time() * 1000 + _MOST_AHEAD_MS]
        if len(times):
            self.newest = max(self.newest, int(times.max()))

    def _pass_over(self, partition: int, bad: list[BadRow]) -> None:
        """Counts bad rows; raises ValueError if they may not be skipped."""
        first = bad[0]
        place = (
            f"Topic {self._stream.topic!r}, partition {partition}, offset {first.row}: "
            f"{first.reason}."
        )
        if not self._skips:
            way_out = f"{first.way_out} " if first.way_out else ""
            raise ValueError(
                f"{place} {way_out}Declare a `default`, or set `data.on_bad_row` to "
                "`skip`."
            )
        before, self.bad_rows = self.bad_rows, self.bad_rows + len(bad)
        # At 1, 10, 100, ... bad rows.
        if len(str(before)) < len(str(self.bad_rows)) or not before:
            logging.warning("Skipped %d bad rows; the last: %s", self.bad_rows, place)


def _joined(tables: list[pa.Table], columns: dict[str, ColumnType]) -> pa.Table:
    """Returns clean tables as one, each column in one chunk."""
    if not tables:
        empty = pa.table({name: pa.nulls(0) for name in columns})
        tables = [arrow.clean(empty, columns)[0]]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
