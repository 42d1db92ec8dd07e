"""Decodes Avro records."""

import decimal
import io
import json
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import fastavro

from monolith_tf.data.stream.decoder import RowDecoder
from monolith_tf.data.stream.schemas import Schemas
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_DTYPES: dict[str, DType] = {
    "int": "int64",
    "long": "int64",
    "boolean": "int64",
    "float": "float32",
    "double": "float32",
    "string": "string",
    "bytes": "string",
    "fixed": "string",
    "enum": "string",
}
_SCHEMA_KEYS = frozenset({"fields", "items", "values", "type"})


class AvroDecoder(RowDecoder):
    """Each payload is a record; fields of a record inside it are named `outer.inner`.

    Dates and times are the integers that Avro stores.
    """

    def __init__(self, spec: StreamSpec) -> None:
        """Reads the schemas.

        Raises:
          ValueError: If one cannot be read, or is not of a record.
        """
        self._schemas = Schemas(spec, _load)
        self._leaves = dict(_leaves(self._schemas.own, "", _named(self._schemas.own)))

    def schema(self, values: Sequence[bytes]) -> dict[str, ColumnType]:
        """See base class; the schema decides, not the values."""
        del values
        return dict(self._leaves)

    def row(self, value: bytes) -> Mapping[str, Any]:
        """See base class."""
        written, begin = self._schemas.of(value)
        stream = io.BytesIO(value)
        stream.seek(begin)
        own = self._schemas.own
        try:
            found = fastavro.schemaless_reader(
                stream, written, None if written is own else own
            )
        except Exception as error:  # As many kinds as there are wrong bytes.
            why = f"{type(error).__name__}: {error}" if str(error) else "it ends early"
            raise ValueError(
                f"the value is not Avro of its schema: {why}{self._schemas.hint(value)}"
            ) from error
        if left := len(value) - stream.tell():
            raise ValueError(
                f"the value has {left} bytes after the record: it is not Avro of its "
                f"schema{self._schemas.hint(value)}"
            )
        row: dict[str, Any] = {}
        _flatten(found, "", row)
        return row


def _load(path: pathlib.Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        parsed = fastavro.parse_schema(_stored(json.loads(text)))
    except (fastavro.schema.SchemaParseException, KeyError, TypeError) as error:
        raise ValueError(f"it is not an Avro schema: {error!r}") from error
    if not isinstance(parsed, dict) or parsed.get("type") != "record":
        raise ValueError("the schema must be of one record.")
    return parsed


def _stored(schema: Any) -> Any:
    """Returns a schema without logical types, except for decimals."""
    if isinstance(schema, list):
        return [_stored(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: _stored(v) if k in _SCHEMA_KEYS else v for k, v in schema.items()}
    if kept.get("logicalType") != "decimal":
        kept.pop("logicalType", None)
    return kept


def _named(schema: Any) -> dict[str, Any]:
    """Returns name -> definition of the types that a parsed schema defines."""
    found: dict[str, Any] = {}
    if isinstance(schema, list):
        for one in schema:
            found |= _named(one)
    elif isinstance(schema, dict):
        if "name" in schema and schema["type"] in ("record", "enum", "fixed", "error"):
            found[schema["name"]] = schema
        for field in schema.get("fields", ()):
            found |= _named(field["type"])
        for key in ("items", "values"):
            found |= _named(schema.get(key))
    return found


def _leaves(
    schema: Any, path: str, named: Mapping[str, Any], inside: tuple[str, ...] = ()
) -> Iterator[tuple[str, ColumnType]]:
    """Yields the columns of a type, by the names of the fields that lead to them."""
    schema, kinds = _resolved(schema, named)
    if kinds == ["record"] and schema["name"] not in inside:
        for field in schema["fields"]:
            name = f"{path}.{field['name']}" if path else field["name"]
            yield from _leaves(field["type"], name, named, (*inside, schema["name"]))
        return
    is_list = kinds == ["array"]
    if is_list:
        schema, kinds = _resolved(schema["items"], named)
    yield path, _column(schema, kinds, is_list=is_list)


def _resolved(schema: Any, named: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Returns a type without null, and the kinds of its values."""
    branches = [named.get(str(one), one) for one in _branches(schema)]
    kinds = [one["type"] if isinstance(one, dict) else one for one in branches]
    kept = [pair for pair in zip(branches, kinds, strict=True) if pair[1] != "null"]
    if len(kept) == 1:
        return kept[0][0], [kept[0][1]]
    return schema, [kind for _, kind in kept]


def _branches(schema: Any) -> list[Any]:
    return schema if isinstance(schema, list) else [schema]


def _column(schema: Any, kinds: Sequence[str], *, is_list: bool) -> ColumnType:
    """Returns the column of values of some kinds."""
    written = f"Avro {'array of ' if is_list else ''}{' or '.join(kinds) or 'null'}"
    dtypes = {_DTYPES.get(kind) for kind in kinds}
    if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
        dtypes = {"float32"}
    if dtypes == {"int64", "float32"} and "boolean" not in kinds:
        dtypes = {"float32"}
    (dtype,) = dtypes if len(dtypes) == 1 else (None,)
    if dtype is None or ("boolean" in kinds and len(kinds) > 1):
        return ColumnType(dtype="string", is_readable=False, written=written)
    kind = "" if dtype == "string" else "bool" if "boolean" in kinds else "number"
    return ColumnType(dtype=dtype, is_list=is_list, kind=kind, written=written)


def _flatten(value: Mapping[str, Any], path: str, row: dict[str, Any]) -> None:
    for field, cell in value.items():
        name = f"{path}{field}"
        if isinstance(cell, dict):  # A record; a map has no column of its own.
            _flatten(cell, f"{name}.", row)
        elif isinstance(cell, decimal.Decimal):
            row[name] = float(cell)
        else:
            row[name] = cell
