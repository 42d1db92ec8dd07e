"""Parquet files: a piece is a row group."""

import functools
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monolith_tf.data import arrow_types
from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import check_has_columns
from monolith_tf.data.reader import check_unique
from monolith_tf.data.spec import DataSpec
from monolith_tf.features.columns import ColumnType

_BLOCK_ROWS = 65_536


class ParquetReader(Reader):
    """Reads Parquet files by row group; strings stay dictionary codes."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self._metadata = functools.lru_cache(maxsize=256)(_read_metadata)

    def schema(self, file: str) -> dict[str, ColumnType]:
        """See `Reader.schema`."""
        schema = self._metadata(file).schema.to_arrow_schema()
        check_unique(file, schema.names)
        return arrow_types.column_types(schema, file)

    def has_rows(self, file: str) -> bool:
        """See `Reader.has_rows`."""
        return bool(self._metadata(file).num_rows)

    def pieces(self, file: str) -> list[Piece]:
        """See `Reader.pieces`."""
        metadata = self._metadata(file)
        pieces = []
        first_row = 0
        for index in range(metadata.num_row_groups):
            num_rows = metadata.row_group(index).num_rows
            if num_rows:
                pieces.append(Piece(file, index, first_row, num_rows))
            first_row += num_rows
        return pieces

    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """See `Reader.read`."""
        names = self._metadata(piece.file).schema.to_arrow_schema().names
        check_has_columns(piece.file, names, columns)
        strings = [
            name
            for name, type_ in columns.items()
            if type_.dtype == "string" and not type_.is_list
        ]
        row = piece.first_row
        with pq.ParquetFile(piece.file, read_dictionary=strings) as file:
            batches = file.iter_batches(
                _BLOCK_ROWS, row_groups=[piece.index], columns=list(columns)
            )
            try:
                for batch in batches:
                    rows = np.arange(row, row + batch.num_rows)
                    row += batch.num_rows
                    yield Block(pa.table(batch), rows)
            except (OSError, pa.ArrowException) as error:
                raise ValueError(
                    f"{piece.file}: row group {piece.index} cannot be read from row "
                    f"{row} on: {error}"
                ) from error

    def may_have_bad_rows(
        self, piece: Piece, columns: Mapping[str, ColumnType]
    ) -> bool:
        """See `Reader.may_have_bad_rows`; uses the statistics in the metadata."""
        metadata = self._metadata(piece.file)
        group = metadata.row_group(piece.index)
        for index in range(group.num_columns):
            chunk = group.column(index)
            path = chunk.path_in_schema  # of a list: its column, then more after a dot
            for name, type_ in columns.items():
                ours = path == name or path.startswith(f"{name}.")
                if ours and _may_be_bad(type_, chunk.statistics):
                    return True
                kind = metadata.schema.column(index).logical_type.type
                if ours and kind in ("STRING", "JSON"):
                    return True  # Statistics do not count invalid UTF-8.
        return False


def _may_be_bad(type_: ColumnType, statistics: pq.Statistics | None) -> bool:
    """Returns whether a column chunk may hold a value that makes a row bad."""
    if type_.length is not None:
        return True  # another length
    if type_.is_probability and not _are_probabilities(statistics):
        return True
    if type_.is_weight and not _are_weights(statistics):
        return True
    if type_.refused and type_.dtype == "float32":
        return True  # Infinity, also of a number that is too large for the type.
    if type_.default is not None:
        return False
    if type_.dtype == "float32":
        return True  # statistics do not count NaN
    return statistics is None or not statistics.has_null_count or statistics.null_count


def _are_probabilities(statistics: pq.Statistics | None) -> bool:
    """Returns whether a column chunk is known to hold nothing outside [0, 1]."""
    if statistics is None or not statistics.has_min_max:
        return False
    low, high = statistics.min, statistics.max
    return isinstance(low, int | float) and 0 <= low <= high <= 1


def _are_weights(statistics: pq.Statistics | None) -> bool:
    """Returns whether a column chunk is known to hold nothing outside [0, inf)."""
    if statistics is None or not statistics.has_min_max:
        return False
    low, high = statistics.min, statistics.max
    return isinstance(low, int | float) and 0 <= low <= high < float("inf")


def _read_metadata(file: str) -> pq.FileMetaData:
    """Returns the footer of a file."""
    try:
        return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: not a readable Parquet file: {error}") from error
