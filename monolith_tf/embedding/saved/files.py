"""The files of an embedding checkpoint, read and written without TensorFlow.

A directory holds one rows file per physical group and shard, and `manifest.json`,
which is written last and lists the contents, sizes and checksums of the others. A rows
file is a sequence of NumPy arrays as `numpy.save` writes them, chunk after chunk: ids,
weights, optimizer state, then one array for each of the group's `stamps`. A counts file
holds the ids that wait for admission, and their counts, in the same form. A sketch file
holds one array: the counts of one shard, or counts that several received. A delta also
has removed files, with the ids that lost their row. Rows are keyed by feature id, in no
particular order, so that any number of shards can read them.
"""

import contextlib
import io
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from monolith_tf.embedding.saved import parts
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.types import JsonDict

FORMAT = 1
FORMAT_OF_CHANGED_COUNTS = 2
"""The format of a delta with counts files that hold only what changed."""
MANIFEST = "manifest.json"
_PACKING_LEVEL = 1


class ArrayWriter:
    """Writes arrays one after another, and tracks their size and checksum.

    Args:
      directory: Where to write.
      name: Name of the file.
    """

    def __init__(self, directory: str, name: str) -> None:
        self._part = parts.Folder(directory).put(name)

    def write(self, data: bytes) -> int:
        """Acts as a file for `numpy.save`."""
        return self._part.write(data)

    def save(self, array: np.ndarray) -> None:
        """Adds one array."""
        np.lib.format.write_array(self, array, allow_pickle=False)

    def close(self) -> JsonDict:
        """Syncs the file to disk, and returns its manifest entry."""
        return self._part.close()


def write_manifest(directory: str, manifest: JsonDict) -> None:
    """Writes the manifest, which marks a directory as complete."""
    parts.Folder(directory).commit(MANIFEST, sealed.seal(manifest))


def read_manifest(directory: str) -> JsonDict:
    """Reads the manifest of a directory, and checks the sizes of its files.

    Raises:
      DamagedError: If the manifest is damaged, or a file is missing or has a wrong
        size.
      ValueError: If there is no manifest, or it is of another format.
    """
    path = os.path.join(directory, MANIFEST)
    try:
        manifest, _ = sealed.unseal(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"`directory` must hold a complete embedding checkpoint. Received: "
            f"directory={directory!r}, which has no {MANIFEST}."
        ) from None
    formats = (FORMAT, FORMAT_OF_CHANGED_COUNTS)
    if manifest.get("format") not in formats:
        raise ValueError(
            f"{path} must be of format {FORMAT} or {FORMAT_OF_CHANGED_COUNTS}. "
            f"Received: format={manifest.get('format')}."
        )
    try:
        files = [(entry["name"], entry["bytes"]) for entry in all_files(manifest)]
    except (KeyError, TypeError) as error:
        raise sealed.DamagedError(f"{path} is damaged: it lacks {error}.") from None
    for name, num_bytes in files:
        file_path = os.path.join(directory, name)
        size = os.path.getsize(file_path) if os.path.exists(file_path) else None
        if size != num_bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise sealed.DamagedError(
                f"Embedding checkpoint file {file_path} {found}; the manifest says "
                f"{num_bytes} bytes. The checkpoint is damaged; use another one."
            )
    return manifest


def verify(directory: str, manifest: JsonDict) -> None:
    """Compares every file with its checksum.

    Raises:
      DamagedError: If one differs.
    """
    for entry in all_files(manifest):
        path = os.path.join(directory, entry["name"])
        crc = 0
        with sealed.reading(path), open(path, "rb") as file:
            while block := file.read(1 << 22):
                crc = zlib.crc32(block, crc)
        _check(path, entry, crc)


def _check(path: str, entry: JsonDict, crc: int) -> None:
    if crc != entry["crc32"]:
        raise sealed.DamagedError(
            f"Embedding checkpoint file {path} differs from its checksum. The "
            "checkpoint is damaged; use another one."
        )


def all_files(manifest: JsonDict) -> Iterator[JsonDict]:
    """Yields the manifest entries of all files."""
    for group in manifest["groups"]:
        yield from group["rows_files"]
        yield from group["counts_files"]
        yield from group["sketch_files"]
        yield from group["removed_files"]


def read_rows(directory: str, group: JsonDict) -> Iterator[Chunk]:
    """Reads a group's rows, chunk by chunk.

    Args:
      directory: Directory of the checkpoint.
      group: The group's entry in the manifest.
    """
    for entry in group["rows_files"]:
        for arrays in _records(directory, entry, 3 + len(group["stamps"])):
            stamps = dict(zip(group["stamps"], arrays[3:], strict=True))
            yield Chunk(arrays[0], arrays[1], arrays[2], stamps)


def read_counts(
    directory: str, group: JsonDict
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads the ids of a group that wait for admission, and their counts."""
    for entry in group["counts_files"]:
        for arrays in _records(directory, entry, 2):
            yield arrays[0], arrays[1]


def read_removed(directory: str, group: JsonDict) -> Iterator[np.ndarray]:
    """Reads the ids of a group that lost their row since an earlier checkpoint."""
    for entry in group["removed_files"]:
        for (ids,) in _records(directory, entry, 1):
            yield ids


def write_sketch(
    directory: str, name: str, sketch: np.ndarray, *, is_packed: bool
) -> JsonDict:
    """Writes a sketch, and returns its manifest entry.

    Args:
      directory: Where to write.
      name: Name of the file.
      sketch: Its counts.
      is_packed: Whether to compress them: a delta with few other changes stays small.
    """
    writer = ArrayWriter(directory, name)
    if not is_packed:
        writer.save(sketch)
        return writer.close()
    plain = io.BytesIO()
    np.lib.format.write_array(plain, sketch, allow_pickle=False)
    packed = zlib.compress(plain.getvalue(), _PACKING_LEVEL)
    writer.save(np.frombuffer(packed, np.uint8))
    return {**writer.close(), "packing": "zlib"}


def read_sketches(directory: str, group: JsonDict) -> Iterator[np.ndarray]:
    """Reads the sketches of a group that counts by them, file by file."""
    for entry in group["sketch_files"]:
        for (sketch,) in _records(directory, entry, 1):
            if entry.get("packing") == "zlib":
                plain = io.BytesIO(zlib.decompress(sketch.tobytes()))
                sketch = np.lib.format.read_array(plain, allow_pickle=False)
            yield sketch


class _Reader:
    """Reads a file for `numpy.load`, and tracks its size and checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0
        self.crc = 0

    def read(self, size: int = -1) -> bytes:
        """Acts as a file."""
        data = self._file.read(size)
        self.bytes += len(data)
        self.crc = zlib.crc32(data, self.crc)
        return data


def _records(directory: str, entry: JsonDict, size: int) -> Iterator[list[np.ndarray]]:
    """Reads a file, `size` arrays at a time.

    Raises:
      DamagedError: If the file is not as it was written. A wrong checksum shows only
        after all of it is read.
    """
    path = os.path.join(directory, entry["name"])
    with contextlib.closing(_open(path)) as file:
        reader = _Reader(file)
        while reader.bytes < entry["bytes"]:
            yield [_array(path, reader) for _ in range(size)]
        _check(path, entry, reader.crc)


def _open(path: str) -> BinaryIO:
    with sealed.reading(path):
        return open(path, "rb")


def _array(path: str, reader: _Reader) -> np.ndarray:
    try:
        with sealed.reading(path):
            return np.lib.format.read_array(reader, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        if isinstance(error, sealed.DamagedError):
            raise
        raise sealed.DamagedError(
            f"Embedding checkpoint file {path} is damaged: {error}"
        ) from error
