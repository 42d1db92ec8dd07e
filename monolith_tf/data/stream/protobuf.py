"""Decodes Protobuf messages."""

import pathlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from google.protobuf import descriptor_pb2  # type: ignore[import-untyped]
from google.protobuf import descriptor_pool
from google.protobuf import message as message_lib
from google.protobuf import message_factory
from google.protobuf import unknown_fields
from google.protobuf.descriptor import Descriptor  # type: ignore[import-untyped]
from google.protobuf.descriptor import FieldDescriptor

from monolith_tf.data.stream.decoder import RowDecoder
from monolith_tf.data.stream.schemas import Schemas
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_DTYPES: dict[int, DType] = {
    FieldDescriptor.CPPTYPE_INT32: "int64",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_UINT32: "int64",
    FieldDescriptor.CPPTYPE_UINT64: "int64",
    FieldDescriptor.CPPTYPE_BOOL: "int64",
    FieldDescriptor.CPPTYPE_FLOAT: "float32",
    FieldDescriptor.CPPTYPE_DOUBLE: "float32",
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_ENUM: "string",
}
_LONGEST_VARINT = 10


class _Type(NamedTuple):
    """A message type of a descriptor set.

    Attributes:
      make: Its class.
      places: Index of its file's type, then of the type inside it, and so on.
    """

    make: type[message_lib.Message]
    places: tuple[int, ...]


class ProtobufDecoder(RowDecoder):
    """Each payload is a message; fields of a message inside it are `outer.inner`.

    The values of enums are their names.
    """

    def __init__(self, spec: StreamSpec) -> None:
        """Reads the descriptor sets.

        Raises:
          ValueError: If one cannot be read, or lacks the message.
        """
        name = spec.message or ""
        self._schemas = Schemas(spec, lambda path: _load(path, name))
        self._has_header = bool(spec.schema_ids)
        self._columns = dict(_leaves(self._schemas.own.make.DESCRIPTOR, ""))

    def schema(self, values: Sequence[bytes]) -> dict[str, ColumnType]:
        """See base class; the schema decides, not the values."""
        del values
        return dict(self._columns)

    def row(self, value: bytes) -> Mapping[str, Any]:
        """See base class."""
        written, begin = self._schemas.of(value)
        name = written.make.DESCRIPTOR.full_name
        if self._has_header:
            places, begin = _places(value, begin)
            if places != written.places:
                raise ValueError(
                    f"the message is of the type {list(places)} of its schema, and "
                    f"{name} is {list(written.places)}"
                )
        try:
            found = written.make.FromString(value[begin:])
        except message_lib.DecodeError as error:
            raise ValueError(
                f"the value is not a {name}: {error}{self._schemas.hint(value)}"
            ) from error
        if not found.IsInitialized():
            missing = ", ".join(found.FindInitializationErrors())
            raise ValueError(f"the value lacks required fields of {name}: {missing}")
        row: dict[str, Any] = {}
        _flatten(found, "", row)
        if len(value) > begin and not found.ListFields() and _unknown(found):
            raise ValueError(
                f"the value has no field of {name}{self._schemas.hint(value)}"
            )
        return row


def _load(path: pathlib.Path, name: str) -> _Type:
    """Returns a type of a file with a `FileDescriptorSet`."""
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file
        pool = descriptor_pool.DescriptorPool()
        for file in files:
            pool.Add(file)
        descriptor = pool.FindMessageTypeByName(name)
    except (message_lib.DecodeError, TypeError) as error:
        raise ValueError(
            f"it is no complete descriptor set: {error}. Make it with `protoc "
            "--include_imports --descriptor_set_out=FILE`."
        ) from error
    except KeyError:
        found = [_full(file, one.name) for file in files for one in file.message_type]
        raise ValueError(
            f"it has no message `{name}`, or lacks a file that it imports (see `protoc "
            f"--include_imports`). It has: {', '.join(found)}. Set "
            "`data.stream.message`."
        ) from None
    return _Type(message_factory.GetMessageClass(descriptor), _index(descriptor))


def _full(file: descriptor_pb2.FileDescriptorProto, name: str) -> str:
    return f"{file.package}.{name}" if file.package else name


def _index(descriptor: Descriptor) -> tuple[int, ...]:
    outer = descriptor.containing_type
    if outer is None:
        return (list(descriptor.file.message_types_by_name).index(descriptor.name),)
    return (*_index(outer), outer.nested_types.index(descriptor))


def _places(value: bytes, begin: int) -> tuple[tuple[int, ...], int]:
    """Returns the indexes of a header, and where the message begins."""
    count, begin = _varint(value, begin)
    if not count:
        return (0,), begin
    if not 0 < count <= len(value):
        raise ValueError("the header of the schema registry is damaged")
    places = []
    for _ in range(count):
        place, begin = _varint(value, begin)
        places.append(place)
    return tuple(places), begin


def _varint(value: bytes, begin: int) -> tuple[int, int]:
    """Returns a zigzag integer, and where it ends."""
    found = 0
    for place, byte in enumerate(value[begin : begin + _LONGEST_VARINT]):
        found |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), begin + place + 1
    raise ValueError("the header of the schema registry is damaged")


def _leaves(
    descriptor: Descriptor, path: str, inside: tuple[str, ...] = ()
) -> Iterator[tuple[str, ColumnType]]:
    """Yields the columns of a message type."""
    for field in descriptor.fields:
        name = f"{path}{field.name}"
        inner = field.message_type
        if inner is None:
            yield name, _column(field)
        elif field.is_repeated or inner.full_name in (*inside, descriptor.full_name):
            written = f"Protobuf {'repeated ' * field.is_repeated}{inner.full_name}"
            yield name, ColumnType(dtype="string", is_readable=False, written=written)
        else:
            yield from _leaves(inner, f"{name}.", (*inside, descriptor.full_name))


def _column(field: FieldDescriptor) -> ColumnType:
    dtype = _DTYPES[field.cpp_type]
    is_bool = field.cpp_type == FieldDescriptor.CPPTYPE_BOOL
    kind = "" if dtype == "string" else "bool" if is_bool else "number"
    written = f"Protobuf {'repeated ' * field.is_repeated}{dtype}"
    return ColumnType(
        dtype=dtype, is_list=field.is_repeated, kind=kind, written=written
    )


def _flatten(found: message_lib.Message, path: str, row: dict[str, Any]) -> None:
    """Adds the fields of a message that have a value."""
    descriptor = found.DESCRIPTOR
    for field in _unknown(found):
        known = descriptor.fields_by_number.get(field.field_number)
        if known is not None:
            raise ValueError(
                f"field {known.number}, `{path}{known.name}`, is not of its type in "
                "the schema"
            )
    for field in descriptor.fields:
        name = f"{path}{field.name}"
        if field.message_type is not None:
            if not field.is_repeated and found.HasField(field.name):
                _flatten(getattr(found, field.name), f"{name}.", row)
        elif field.is_repeated:
            row[name] = [
                _cell(field, cell, name) for cell in getattr(found, field.name)
            ]
        elif not field.has_presence or found.HasField(field.name):
            row[name] = _cell(field, getattr(found, field.name), name)


def _cell(field: FieldDescriptor, cell: Any, name: str) -> Any:
    if field.enum_type is None:
        return cell
    if cell not in field.enum_type.values_by_number:
        raise ValueError(
            f"column `{name}`: {cell} is no value of {field.enum_type.full_name}"
        )
    return field.enum_type.values_by_number[cell].name


def _unknown(found: message_lib.Message) -> unknown_fields.UnknownFieldSet:
    return unknown_fields.UnknownFieldSet(found)
