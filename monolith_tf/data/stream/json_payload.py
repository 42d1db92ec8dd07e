"""Decodes JSON objects."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import orjson

from monolith_tf.data.stream.decoder import RowDecoder
from monolith_tf.data.stream.decoder import short
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType


class JsonDecoder(RowDecoder):
    """Each payload is an object with the columns of one row."""

    def schema(self, values: Sequence[bytes]) -> dict[str, ColumnType]:
        """See base class."""
        seen: dict[str, _Seen] = {}
        for value in values:
            try:
                row = self.row(value)
            except ValueError:
                continue
            for name, cell in row.items():
                seen.setdefault(name, _Seen()).add(cell)
        return {name: one.column() for name, one in seen.items() if one.is_known}

    def row(self, value: bytes) -> Mapping[str, Any]:
        """See base class."""
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"the value is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"the value is not a JSON object, but {short(found)}")
        return found


class _Seen:
    """What the cells of one column look like."""

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._is_list = False

    def add(self, cell: Any) -> None:
        """Adds a cell."""
        self._is_list |= isinstance(cell, list)
        self._kinds |= set(map(type, cell if isinstance(cell, list) else [cell]))

    @property
    def is_known(self) -> bool:
        """Whether any cell has a value."""
        return self._is_list or bool(self._kinds - {type(None)})

    def column(self) -> ColumnType:
        """Returns the type that the cells have in common."""
        kinds = self._kinds - {type(None)}
        if dict in kinds or list in kinds:
            return ColumnType(dtype="string", is_readable=False, written="JSON object")
        dtype: DType = "int64"
        if str in kinds:
            dtype = "string"
        elif float in kinds:
            dtype = "float32"
        kind = "bool" if kinds == {bool} else "number" if kinds else ""
        kind = "" if dtype == "string" else kind
        return ColumnType(
            dtype=dtype, is_list=self._is_list, kind=kind, written=f"JSON {dtype}"
        )
