"""Schemas of payloads: which one a message was written with."""

import os
import pathlib
from collections.abc import Callable
from typing import Generic
from typing import TypeVar

from monolith_tf.data.stream.spec import StreamSpec

_HEADER_BYTES = 5

Schema = TypeVar("Schema")


class Schemas(Generic[Schema]):
    """The schema by which rows are read, and those by which messages are written.

    Attributes:
      own: The schema by which rows are read.
    """

    def __init__(self, spec: StreamSpec, load: Callable[[pathlib.Path], Schema]):
        """Reads the schemas.

        Args:
          spec: The stream, with `schema` and `schema_ids`.
          load: Reads a file; raises ValueError if it is no schema.

        Raises:
          ValueError: If a file cannot be read.
        """
        if spec.schema is None:
            raise ValueError(f"`data.stream.schema` must be set for {spec.payload}.")
        self._load = load
        self.own = self._read(spec.schema, "schema")
        self._by_id: dict[int, Schema] = {}
        for number, path in spec.schema_ids.items():
            read = self._read(path, f"schema_ids[{number}]")
            self._by_id[number] = self.own if read == self.own else read

    def _read(self, path: str, key: str) -> Schema:
        try:
            return self._load(pathlib.Path(os.path.expanduser(path)))
        except (OSError, ValueError) as error:
            raise ValueError(f"`data.stream.{key}`: {path}: {error}") from error

    def of(self, value: bytes) -> tuple[Schema, int]:
        """Returns the schema of a message, and where its data begin.

        Raises:
          ValueError: If the message has no header, or one of another schema.
        """
        if not self._by_id:
            return self.own, 0
        if len(value) < _HEADER_BYTES or value[0] != 0:
            raise ValueError(
                "the value does not begin with a 0 byte and the id of a schema, which "
                "`schema_ids` needs"
            )
        number = int.from_bytes(value[1:_HEADER_BYTES])
        if number not in self._by_id:
            known = ", ".join(map(str, sorted(self._by_id)))
            raise ValueError(
                f"the message has the schema {number}, and `schema_ids` has {known}. "
                "Get it from the schema registry and add it"
            )
        return self._by_id[number], _HEADER_BYTES

    def hint(self, value: bytes) -> str:
        """Returns what else may be wrong with a value that cannot be decoded."""
        if self._by_id or value[:1] != b"\0":
            return ""
        return (
            ". It begins with a 0 byte: if a schema registry's header, set "
            "`data.stream.schema_ids`"
        )
