"""Random rows that fit the requested columns, to try a config without data."""

import zlib
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.spec import Split
from monolith_tf.features.columns import ColumnType

_PIECE_ROWS = 4096
_NUM_VALUES = 1000
_MAX_LENGTH = 10


class SyntheticReader(Reader):
    """Draws each column separately, with a seed made of split, piece and column.

    All lists of a row have the same length, as the columns of one history must.
    """

    guesses_types = True

    def files(self, split: Split) -> list[str]:
        """Returns a single name for a split's rows."""
        return [f"synthetic:{split}"]

    def schema(self, file: str) -> dict[str, ColumnType]:
        """Returns nothing: any column can be requested."""
        return {}

    def pieces(self, file: str) -> list[Piece]:
        """See `Reader.pieces`."""
        starts = range(0, self.spec.num_rows, _PIECE_ROWS)
        return [
            Piece(file, index, start, min(_PIECE_ROWS, self.spec.num_rows - start))
            for index, start in enumerate(starts)
        ]

    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """See `Reader.read`."""
        num_rows = piece.num_rows or 0
        lengths = _rng(piece, "").integers(0, _MAX_LENGTH, num_rows)
        arrays = [
            _column(_rng(piece, name), lengths, type_)
            for name, type_ in columns.items()
        ]
        rows = np.arange(piece.first_row, piece.first_row + num_rows)
        yield Block(pa.table(arrays, names=list(columns)), rows)

    def may_have_bad_rows(
        self, piece: Piece, columns: Mapping[str, ColumnType]
    ) -> bool:
        """See `Reader.may_have_bad_rows`."""
        return False


def _rng(piece: Piece, column: str) -> np.random.Generator:
    key = [zlib.crc32(text.encode()) for text in (piece.file, column)]
    return np.random.default_rng([*key, piece.index])


def _column(
    rng: np.random.Generator, lengths: np.ndarray, type_: ColumnType
) -> pa.Array:
    """Draws one column."""
    num_rows = len(lengths)
    if not type_.is_list:
        return _values(rng, num_rows, type_)
    if type_.length is not None:
        values = _values(rng, num_rows * type_.length, type_)
        return pa.FixedSizeListArray.from_arrays(values, type_.length)
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(splits, _values(rng, int(splits[-1]), type_))


def _values(rng: np.random.Generator, num: int, type_: ColumnType) -> pa.Array:
    """Draws values: from the choices, small integers or their names, or normal."""
    if type_.choices:
        return pa.array(
            [type_.choices[i] for i in rng.integers(0, len(type_.choices), num)]
        )
    if type_.dtype == "float32":
        return pa.array(rng.normal(size=num).astype(np.float32))
    drawn = rng.integers(0, _NUM_VALUES, num)
    if type_.dtype == "int64":
        return pa.array(drawn)
    return pa.DictionaryArray.from_arrays(
        pa.array(drawn.astype(np.int32)), [f"value-{i}" for i in range(_NUM_VALUES)]
    )
