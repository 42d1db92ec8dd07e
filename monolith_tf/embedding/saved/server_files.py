"""Files that a process writes for another one, which sends it the arrays.

A store's rows are written where they are: by the parameter servers, each its own.
"""

import dataclasses
import json
import os

import numpy as np

from monolith_tf import remote
from monolith_tf.embedding.saved import files


@dataclasses.dataclass
class _File:
    """A file that is being written.

    Attributes:
      writer: Writes it.
      rows: Rows so far.
    """

    writer: files.ArrayWriter
    rows: int = 0


_OPEN: dict[tuple[bytes, bytes], _File] = {}  # By directory and name.


@remote.function
def begin(directory: bytes, name: bytes) -> bytes:
    """Begins a file; one that was begun before is left as it is.

    Raises:
      FileNotFoundError: If the directory, which the caller made, is not found here.
    """
    folder = directory.decode()
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"{folder} must be a folder that all tasks of the job share, under the "
            f"same path. It is not found by process {os.getpid()}, which was to write "
            f"{name.decode()} there."
        )
    _OPEN[directory, name] = _File(files.ArrayWriter(folder, name.decode()))
    return b""


@remote.function
def add(directory: bytes, name: bytes, *arrays: np.ndarray) -> int:
    """Adds arrays with a line per row, if there are any rows; returns their number."""
    file, rows = _OPEN[directory, name], len(arrays[0])
    if rows:
        for array in arrays:
            file.writer.save(array)
    file.rows += rows
    return rows


@remote.function
def add_by_id(directory: bytes, name: bytes, *arrays: np.ndarray) -> int:
    """As `add`, ordered by the first array."""
    order = np.argsort(arrays[0])
    return add(directory, name, *(array[order] for array in arrays))


@remote.function
def finish(directory: bytes, name: bytes) -> bytes:
    """Ends a file, and returns its entry of the manifest as JSON."""
    file = _OPEN.pop((directory, name))
    return json.dumps({**file.writer.close(), "rows": file.rows}).encode()
