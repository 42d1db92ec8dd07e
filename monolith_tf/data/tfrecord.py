"""TFRecord files of tf.Example, plain or compressed: a piece is a file."""

import itertools
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from monolith_tf.data import tf_example
from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import check_has_columns
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_BATCH_ROWS = 2048
_SAMPLE_ROWS = 200


class TFRecordReader(Reader):
    """Reads records in batches and parses a whole batch at once.

    A feature that an example lacks, or that has no values, is a missing value.
    """

    guesses_types = True

    def schema(self, file: str) -> dict[str, ColumnType]:
        """See `Reader.schema`; guesses types from the first records."""
        types: dict[str, ColumnType] = {}
        with pa.input_stream(file, compression="detect") as stream:
            try:
                for record in itertools.islice(
                    tf_example.frames(stream, file), _SAMPLE_ROWS
                ):
                    for name, found in _feature_types(record).items():
                        dtype, is_list = found
                        is_list |= name in types and types[name].is_list
                        types[name] = ColumnType(dtype=dtype, is_list=is_list)
            except OSError as error:
                raise ValueError(f"{file}: not readable: {error}") from error
        return types

    def has_rows(self, file: str) -> bool:
        """See `Reader.has_rows`."""
        with pa.input_stream(file, compression="detect") as stream:
            try:
                return bool(stream.read(1))
            except OSError:
                return True  # Reading it reports what is wrong.

    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """See `Reader.read`."""
        schema = self.schema(piece.file)
        if schema:  # not empty, nor malformed from the start
            check_has_columns(piece.file, list(schema), columns)
        dtypes = {
            name: schema.get(name, type_).dtype for name, type_ in columns.items()
        }
        row = 0
        for records in self._records(piece.file):
            rows = np.arange(row, row + len(records))
            yield parse(records, rows, columns, dtypes)
            row += len(records)

    def count(self, piece: Piece) -> int:
        """See `Reader.count`."""
        return sum(len(records) for records in self._records(piece.file))

    def _records(self, file: str) -> Iterator[np.ndarray]:
        """Yields serialized examples, bytes [rows]."""
        import tensorflow as tf

        if file.endswith((".gz", ".zst")):
            with pa.input_stream(file, compression="detect") as stream:
                frames = tf_example.frames(stream, file)
                try:
                    while records := list(itertools.islice(frames, _BATCH_ROWS)):
                        yield np.array(records, object)
                except OSError as error:
                    raise ValueError(f"{file}: not readable: {error}") from error
            return
        with tf.device("CPU:0"):
            dataset = tf.data.TFRecordDataset(file)
        try:
            for records in dataset.batch(_BATCH_ROWS):
                yield records.numpy()
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            row = 0
            try:
                for _ in dataset:
                    row += 1
            except tf.errors.OpError:
                pass
            raise ValueError(
                f"{file}: row {row} (counting from 0): the record is damaged, and "
                f"later records cannot be found: {error.message}"
            ) from error


def _feature_types(record: bytes) -> dict[str, tuple[DType, bool]]:
    """Returns the types in one record; empty if it is malformed."""
    try:
        return tf_example.feature_types(record)
    except (ValueError, IndexError):
        return {}


def parse(
    records: np.ndarray,
    rows: np.ndarray,
    columns: Mapping[str, ColumnType],
    dtypes: Mapping[str, DType],
) -> Block:
    """Parses examples; those that do not parse become bad rows.

    Args:
      records: Serialized examples, bytes [rows].
      rows: Their numbers, int64 [rows].
      columns: The columns to read.
      dtypes: Column -> its type in the examples.
    """
    bad: list[BadRow] = []
    parsed = _parse_batch(records, dtypes)
    if parsed is None:
        fine = np.ones(len(records), bool)
        for index in _find_unreadable(records, dtypes):
            fine[index] = False
            bad.append(BadRow(int(rows[index]), _why_bad(records[index], dtypes)))
        records, rows = records[fine], rows[fine]
        parsed = _parse_batch(records, dtypes) or {}
    fine = np.ones(len(records), bool)
    arrays = []
    for name, type_ in columns.items():
        values, splits = parsed[name]
        lengths = np.diff(splits)
        if not type_.is_list:
            for index in np.flatnonzero(fine & (lengths > 1)).tolist():
                reason = f"feature `{name}` has {lengths[index]} values, not one"
                bad.append(BadRow(int(rows[index]), reason))
            fine &= lengths <= 1
        arrays.append(_column(values, splits, type_))
    table = pa.table(arrays, names=list(columns))
    if not fine.all():
        table, rows = table.filter(pa.array(fine)), rows[fine]
    return Block(table, rows, tuple(sorted(bad, key=lambda row: row.row)))


def _find_unreadable(
    records: np.ndarray, dtypes: Mapping[str, DType], first: int = 0
) -> list[int]:
    """Returns the places of records that do not parse, found by bisection.

    At least one of `records` does not parse.
    """
    if len(records) == 1:
        return [first]
    half = len(records) // 2
    found = []
    for start, part in ((0, records[:half]), (half, records[half:])):
        if _parse_batch(part, dtypes) is None:
            found += _find_unreadable(part, dtypes, first + start)
    return found


def _why_bad(record: bytes, dtypes: Mapping[str, DType]) -> str:
    """Returns why TensorFlow does not parse a record."""
    try:
        found = tf_example.feature_types(record)
    except (ValueError, IndexError) as error:
        return f"not a tf.Example: {error}"
    for name, dtype in dtypes.items():
        if name in found and found[name][0] != dtype:
            return f"feature `{name}` has type {found[name][0]}, not {dtype}"
    return "not a tf.Example"


def _parse_batch(
    records: np.ndarray, dtypes: Mapping[str, DType]
) -> dict[str, tuple[np.ndarray, np.ndarray]] | None:
    """Returns values and row splits of each feature; None if a record is malformed."""
    import tensorflow as tf

    features: dict[str, tf.io.RaggedFeature] = {
        name: tf.io.RaggedFeature(getattr(tf, dtype), row_splits_dtype=tf.int64)
        for name, dtype in dtypes.items()
    }
    if not features:
        return {}
    try:
        with tf.device("CPU:0"):
            parsed = tf.io.parse_example(tf.constant(records, tf.string), features)
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
        # TensorFlow quotes the record in its error, and may fail to decode it as text.
        return None
    return {
        name: (ragged.values.numpy(), ragged.row_splits.numpy())
        for name, ragged in parsed.items()
    }


def _column(values: np.ndarray, splits: np.ndarray, type_: ColumnType) -> pa.Array:
    """Returns parsed values as an Arrow column."""
    flat = pa.array(values, pa.binary() if values.dtype == object else None)
    absent = np.diff(splits) == 0
    if type_.is_list:
        made = pa.ListArray.from_arrays(pa.array(splits.astype(np.int32)), flat)
        return made if type_.length is None else _with_nulls(made, absent)
    return flat.take(pa.array(splits[:-1], mask=absent))


def _with_nulls(array: pa.Array, absent: np.ndarray) -> pa.Array:
    """Returns an array with nulls in the given places."""
    places = np.arange(len(array))
    return array.take(pa.array(places, mask=absent))
