"""Where a checkpoint's files are: a small interface, and a local folder.

A checkpoint is a set of parts and a manifest. Parts are put first, under names that no
part has yet; the manifest names them, with their sizes and checksums, and is committed
last. A part that no manifest names does not count, so nothing has to be renamed, and a
storage only needs to replace the manifest at once.
"""

import contextlib
import hashlib
import os
import pathlib
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import BinaryIO
from typing import Protocol

from monolith_tf import atomic
from monolith_tf.types import JsonDict


class Part(Protocol):
    """A part that is being put; it counts once it is closed."""

    def write(self, data: bytes) -> int:
        """Adds bytes."""

    def close(self) -> JsonDict:
        """Makes it durable, and returns its `name`, `bytes`, `crc32` and `sha256`."""


class Parts(Protocol):
    """The parts of one checkpoint in some storage."""

    def put(self, name: str) -> Part:
        """Begins a part, or one that replaces a part that no manifest names."""

    def put_files(self, write: Callable[[pathlib.Path], object]) -> list[JsonDict]:
        """Puts the files that a function writes into the local folder it is given."""

    def commit(self, name: str, manifest: str) -> None:
        """Makes the manifest appear, or replaces it at once, after all parts."""

    def open(self, name: str) -> BinaryIO:
        """Opens a part.

        Raises:
          FileNotFoundError: If there is none.
        """

    def names(self) -> list[str]:
        """Returns the names of all parts, named by a manifest or not."""

    def remove(self, name: str) -> None:
        """Removes a part, if there is one."""


class Folder:
    """Parts in a local folder; fulfils `Parts`.

    Args:
      path: The folder, which is made with the first part.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)

    def put(self, name: str) -> "FilePart":
        """See `Parts.put`."""
        file = self._path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return FilePart(file, name)

    def put_files(self, write: Callable[[pathlib.Path], object]) -> list[JsonDict]:
        """See `Parts.put_files`."""
        self._path.mkdir(parents=True, exist_ok=True)
        before = set(self.names())
        write(self._path)
        return [self.entry(name) for name in self.names() if name not in before]

    def entry(self, name: str) -> JsonDict:
        """Makes a file that is already there durable, and describes it as a part."""
        crc, num_bytes, sha = 0, 0, hashlib.sha256()
        with open(self._path / name, "rb") as file:
            while block := file.read(1 << 22):
                crc, num_bytes = zlib.crc32(block, crc), num_bytes + len(block)
                sha.update(block)
            os.fsync(file.fileno())
        described = {"name": name, "bytes": num_bytes, "crc32": crc}
        return {**described, "sha256": sha.hexdigest()}

    def commit(self, name: str, manifest: str) -> None:
        """See `Parts.commit`."""
        self._path.mkdir(parents=True, exist_ok=True)
        for folder in [self._path, *self._path.rglob("*")]:
            if folder.is_dir():
                _sync(folder)
        atomic.write_text(self._path / name, manifest)
        _sync(self._path)
        _sync(self._path.parent)

    def open(self, name: str) -> BinaryIO:
        """See `Parts.open`."""
        return open(self._path / name, "rb")

    def names(self) -> list[str]:
        """See `Parts.names`."""
        files = (file for file in self._path.rglob("*") if file.is_file())
        return sorted(str(file.relative_to(self._path)) for file in files)

    def remove(self, name: str) -> None:
        """See `Parts.remove`."""
        (self._path / name).unlink(missing_ok=True)


class FilePart:
    """A file that is being written; fulfils `Part`."""

    def __init__(self, path: pathlib.Path, name: str) -> None:
        self._path, self._name = path, name
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115
        self._bytes = 0
        self._crc = 0
        self._sha = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """See `Part.write`."""
        self._crc = zlib.crc32(data, self._crc)
        self._sha.update(data)
        self._bytes += len(data)
        with self._named():
            return self._file.write(data)

    def close(self) -> JsonDict:
        """See `Part.close`."""
        with self._named():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        described = {"name": self._name, "bytes": self._bytes, "crc32": self._crc}
        return {**described, "sha256": self._sha.hexdigest()}

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Adds the path to an error, such as that of a full disk."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def _sync(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
