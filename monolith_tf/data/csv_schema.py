"""Finds the column types of a CSV file from its first rows."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from monolith_tf.data import csv_guess
from monolith_tf.data.csv_cells import Cells
from monolith_tf.data.csv_file import CsvFile
from monolith_tf.data.reader import check_unique
from monolith_tf.data.spec import DataSpec
from monolith_tf.features.columns import ColumnType

_GUESS_BLOCKS = 16  # Most blocks searched for a value of every column.


def read(file: CsvFile, spec: DataSpec, cells: Cells) -> dict[str, ColumnType]:
    """Returns column -> type, a guess.

    A text column may hold lists, so this also guesses the type of their elements.

    Raises:
      ValueError: If the file cannot be read.
    """
    options = pyarrow.csv.ConvertOptions(
        null_values=["", *spec.null_values], strings_can_be_null=True
    )
    schema = file.open(options).schema
    check_unique(file.path, schema.names)
    types = {
        field.name: ColumnType(dtype=csv_guess.of_arrow(field.type), is_guess=True)
        for field in schema
    }
    return types | _look_closer(file, cells, types)


def _look_closer(
    file: CsvFile, cells: Cells, types: Mapping[str, ColumnType]
) -> dict[str, ColumnType]:
    """Returns more exact types than the parser's.

    A column may begin with many empty cells, so this reads until every column has
    a value, but at most `_GUESS_BLOCKS` blocks.
    """
    found: dict[str, ColumnType] = {}
    options = pyarrow.csv.ConvertOptions(
        include_columns=list(types),
        column_types=dict.fromkeys(types, pa.binary()),
    )
    malformed: list[Any] = []
    numbers = file.number_rows(malformed)
    blocks = file.open(options, malformed)
    for batch in itertools.islice(blocks, _GUESS_BLOCKS):
        rows, _ = numbers.take(batch.num_rows)
        for name in [name for name in types if name not in found]:
            closer = _guess(cells, batch.column(name), rows, types[name])
            if closer is not None:
                where = closer.example and f"{closer.example} of {file.path}"
                found[name] = dataclasses.replace(closer, example=where)
        if len(found) == len(types):
            break
    if not found and (spoilt := file.spoilt_row()):
        raise ValueError(f"{file.path}: no row shows the types of the columns{spoilt}")
    return found


def _guess(
    cells: Cells, column: pa.Array, rows: np.ndarray, type_: ColumnType
) -> ColumnType | None:
    """Returns the type of a column, or None if all its cells are empty."""
    elements = cells.elements(column).drop_null()
    if not len(elements):
        return None
    texts = cells.texts(column)
    dtype, of_elements = csv_guess.guess(texts), csv_guess.guess(elements)
    as_number = csv_guess.guess_number(texts)
    is_new = type_.dtype not in (dtype, "float32")  # Floats are never ids.
    example, first = "", -1
    if dtype != "int64":
        expected = {
            "string": csv_guess.are_numbers,
            "float32": csv_guess.are_integers,
        }
        first = pc.index(expected[dtype](texts), False).as_py()
    if first >= 0:
        cell = texts.cast(pa.binary())[first].as_py().decode(errors="replace")
        example = f"{cell!r} in row {rows[first]}"
    return dataclasses.replace(
        type_,
        dtype=dtype,
        elements=None if of_elements == dtype else of_elements,
        example=example,
        before=type_.dtype if is_new else None,
        as_number=None if as_number == dtype else as_number,
        is_truth=csv_guess.hold_truth(elements),
    )
