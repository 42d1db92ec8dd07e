"""TFRecord framing and the wire format of tf.Example, without TensorFlow.

Enough to find the features of records and their types, and to read records of
compressed files: TensorFlow cannot decompress zst, and takes a gz file that was cut for
a whole one.
"""

import struct
from collections.abc import Iterator
from typing import IO

import google_crc32c

from monolith_tf.features.columns import DType

# Field of `Feature` -> type: bytes_list, float_list, int64_list.
_DTYPES: dict[int, DType] = {1: "string", 2: "float32", 3: "int64"}


def frames(stream: IO[bytes], file: str) -> Iterator[bytes]:
    """Yields the records of a TFRecord stream, and checks their checksums.

    Args:
      stream: A decompressed binary file.
      file: Its name, for errors.

    Raises:
      ValueError: If a record is damaged, or the stream ends within one.
    """
    row = 0
    while header := stream.read(12):
        place = f"{file}: row {row} (counting from 0)"
        if len(header) < 12:
            raise ValueError(f"{place}: truncated record.")
        length, length_crc = struct.unpack("<QI", header)
        if length_crc != _masked_crc(header[:8]):
            raise ValueError(_damaged(place))
        record, footer = stream.read(length), stream.read(4)
        if len(record) < length or len(footer) < 4:
            raise ValueError(f"{place}: truncated record.")
        if struct.unpack("<I", footer)[0] != _masked_crc(record):
            raise ValueError(_damaged(place))
        yield record
        row += 1


def _damaged(place: str) -> str:
    return (
        f"{place}: the record is damaged, and later records cannot be found: it does "
        "not match its checksum."
    )


def _masked_crc(data: bytes) -> int:
    """Returns the checksum of the TFRecord format, a masked CRC-32C."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def feature_types(record: bytes) -> dict[str, tuple[DType, bool]]:
    """Returns the type of each feature of a tf.Example, and whether it is a list.

    A feature without a kind is left out, since its type is not known.

    Raises:
      ValueError: If the record is not a tf.Example.
    """
    types = {}
    for _, features in _fields(record, 1):
        for _, entry in _fields(features, 1):
            names = [value for _, value in _fields(entry, 1)]
            for _, feature in _fields(entry, 2):
                for kind, values in _fields(feature, *_DTYPES):
                    dtype = _DTYPES[kind]
                    types[names[0].decode()] = (dtype, _length(values, dtype) != 1)
    return types


def _length(values: bytes, dtype: DType) -> int:
    """Returns the number of values in a bytes_list, float_list or int64_list."""
    if dtype == "string":
        return sum(1 for _ in _fields(values, 1))
    total = 0
    for number, packed in _fields(values, 1, packed=True):
        if number == 0:  # not packed: one value per field
            total += 1
        elif dtype == "float32":
            total += len(packed) // 4
        else:
            total += sum(byte < 128 for byte in packed)
    return total


def _fields(
    message: bytes, *numbers: int, packed: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Yields the length-delimited fields of a message with these numbers.

    With `packed`, yields any other field too, as number 0.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 2:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError("a field reaches beyond its message")
            if tag >> 3 in numbers:
                yield tag >> 3, message[place : place + length]
            place += length
            continue
        if wire == 0:
            _, place = _varint(message, place)
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")
        if packed:
            yield 0, b""


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Returns a variable-length integer and the place after it."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("an integer reaches beyond its message")
        byte = message[place]
        value |= (byte & 127) << shift
        place += 1
        shift += 7
        if byte < 128:
            return value, place
