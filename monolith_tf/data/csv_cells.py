"""Converts the cells of CSV files: numbers, strings, lists of them, missing values."""

from collections.abc import Callable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monolith_tf.data import csv_guess
from monolith_tf.data import text
from monolith_tf.data.spec import DataSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_NUMBERS = {"int64": pa.int64(), "float32": pa.float32()}
_NOUNS = {"int64": "an integer", "float32": "a number"}
_TRUTH = {"true": 1, "false": 0, "1": 1, "0": 0}
_NOT_AS_WRITTEN = "is an integer with leading zeros or in hexadecimal"
_OF_64_BITS = " of 64 bits"


class Cells:
    """Converts cells as `data.list_delimiter` and `data.null_values` say."""

    def __init__(self, spec: DataSpec) -> None:
        self._list_delimiter = spec.list_delimiter
        self._null_values = spec.null_values

    def texts(self, cells: pa.Array) -> pa.Array:
        """Returns cells as strings without surrounding spaces, null if missing."""
        cells = pc.ascii_trim_whitespace(cells.cast(pa.string(), safe=False))
        return self._with_nulls(cells)

    def elements(self, cells: pa.Array) -> pa.Array:
        """Returns the elements of cells that are lists, as `texts` returns cells."""
        _, elements = self._split(self._with_nulls(cells))
        return self.texts(elements)

    def convert(
        self, cells: pa.Array, type_: ColumnType, holds_truth: Callable[[], bool]
    ) -> tuple[pa.Array, dict[int, str]]:
        """Returns converted cells, and place -> why the cell does not convert.

        Args:
          cells: The cells of a column, as bytes.
          type_: The type to read.
          holds_truth: Returns whether the column's cells in the file are true or false,
            if `type_` does not specify it.
        """
        if not type_.is_list:
            if type_.dtype != "string":
                return _parse(self.texts(cells), type_, holds_truth)
            if type_.default is not None:
                cells = self._with_nulls(cells)
            encoded = cells.dictionary_encode()
            return encoded, _by_place(encoded, text.not_text(encoded.dictionary))
        cells = self._with_nulls(cells)
        lists, elements = self._split(cells)
        if type_.dtype == "string":
            values = elements.cast(pa.binary()).dictionary_encode()
            wrong = _by_place(values, text.not_text(values.dictionary))
        else:
            values, wrong = _parse(self.texts(elements), type_, holds_truth)
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        made = pa.ListArray.from_arrays(pa.array(splits), values, mask=cells.is_null())
        return made, {int(owner[index]): reason for index, reason in wrong.items()}

    def _split(self, cells: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Returns cells as lists, and the elements of all of them."""
        lists = pc.split_pattern(
            cells.cast(pa.string(), safe=False), self._list_delimiter
        )
        lists = pc.if_else(cells.is_null(), None, lists)
        return lists, lists.flatten()

    def _with_nulls(self, cells: pa.Array) -> pa.Array:
        """Replaces cells that mean a missing value by null."""
        missing = pc.equal(pc.binary_length(cells), 0)
        if self._null_values:
            names = pa.array(self._null_values, pa.string()).cast(cells.type)
            missing = pc.or_(missing, pc.is_in(cells, value_set=names))
        return pc.if_else(missing, None, cells) if pc.any(missing).as_py() else cells


def way_out(type_: ColumnType, reason: str) -> str:
    """Returns advice for a cell that does not convert."""
    if type_.dtype == "string":
        return text.CONVERT
    if reason.endswith(_NOT_AS_WRITTEN):
        return (
            "Set `dtype: string` of the feature that reads it if 007 is not 7, or "
            "`dtype: int` for integers."
        )
    if reason.endswith(_OF_64_BITS):
        return "Set `dtype: string` of the feature: each string gets its own row."
    comma = "Write numbers with a decimal point. " if "," in reason else ""
    return (
        f"{comma}If it means a missing value, add it to `data.null_values`; if "
        "the column has another type, set `dtype` of the feature that reads it."
    )


def _parse(
    cells: pa.Array, type_: ColumnType, holds_truth: Callable[[], bool]
) -> tuple[pa.Array, dict[int, str]]:
    """Returns cells as numbers, and place -> why the cell is not one.

    Args:
      cells: Strings, or null for a missing value.
      type_: The type to read.
      holds_truth: Returns whether the column's cells in the file are true or false, if
        `type_` does not specify it.
    """
    numbers, wrong = _parse_as(cells, type_, holds_truth)
    if type_.dtype == "int64" and type_.is_guess:
        codes = csv_guess.codes(cells).fill_null(False)
        for place in np.flatnonzero(codes.to_numpy(zero_copy_only=False)).tolist():
            reason = f"{cells[place].as_py()!r} {_NOT_AS_WRITTEN}"
            wrong.setdefault(place, reason)
    return numbers, wrong


def _parse_as(
    cells: pa.Array, type_: ColumnType, holds_truth: Callable[[], bool]
) -> tuple[pa.Array, dict[int, str]]:
    """Like `_parse`, but accepts integers in any notation."""
    dtype = type_.dtype
    if not type_.is_truth:
        try:
            return cells.cast(_NUMBERS[dtype]), {}
        except pa.ArrowInvalid:
            pass
    encoded = cells.dictionary_encode()
    texts = [
        cell.decode(errors="replace")
        for cell in encoded.dictionary.cast(pa.binary()).to_pylist()
    ]
    is_truth = type_.is_truth
    if is_truth is None:
        has_words = any(cell.lower() in ("true", "false") for cell in texts)
        is_truth = has_words and holds_truth()
    numbers: list[float | None] = []
    wrong: dict[int, str] = {}
    for code, cell in enumerate(texts):
        found = _TRUTH.get(cell.lower()) if is_truth else _number(cell, dtype)
        numbers.append(found)
        if found is None:
            noun = "true, false, 1 or 0" if is_truth else _NOUNS[dtype]
            wrong[code] = f"{cell!r} is not {noun}"
            is_integer = cell.isascii() and cell.lstrip("-").isdigit()
            if is_integer and dtype == "int64" and not is_truth:
                wrong[code] += _OF_64_BITS
    made = pa.array(numbers, _NUMBERS[dtype]).take(encoded.indices)
    return made, _by_place(encoded, wrong)


def _number(cell: str, dtype: DType) -> float | None:
    """Returns one cell as a number."""
    try:
        return pa.scalar(cell).cast(_NUMBERS[dtype]).as_py()
    except pa.ArrowInvalid:
        return None


def _by_place(encoded: pa.DictionaryArray, wrong: Mapping[int, str]) -> dict[int, str]:
    """Returns place -> problem, from dictionary code -> problem."""
    if not wrong:
        return {}
    codes = encoded.indices.fill_null(-1).to_numpy()
    places = np.flatnonzero(np.isin(codes, list(wrong)))
    return {int(place): wrong[int(codes[place])] for place in places}
