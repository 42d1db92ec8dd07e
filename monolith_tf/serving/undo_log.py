"""What an update replaced on a server, so that it can be put back exactly.

    <model_dir>/published/<address>.undo

The file has what the last update of the server replaced. Each record is written before
the server gets what replaces it. Parameter servers that send their rows themselves add
files of their own, `<address>.undo.<number>`.
"""

import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple
from typing import Protocol

import numpy as np

from monolith_tf.serving.changed_rows import Rows
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_FOLDER = "published"
_HOLD = "on_hold"


class Replaced(NamedTuple):
    """What an update replaced.

    Attributes:
      version: The server's version.
      token: Its token when the update began.
      step: Its step then; 0 if the next update must send all rows.
      after: Version, token and step when the update was complete; None if it is not.
      table: Name of one of its tables.
      dim: Width of that table's rows.
      rows: The rows, the last ones replaced first.
      dense: The dense weights; None if they were not replaced.
    """

    version: int
    token: int
    step: int
    table: str
    dim: int
    after: JsonMapping | None
    rows: tuple[Rows, ...]
    dense: np.ndarray | None


class Keeper(Protocol):
    """Keeps what is replaced."""

    def add(self, rows: Rows) -> None:
        """Records rows that are served now."""


class UndoLog:
    """Writes the file of one server.

    Attributes:
      id: A unique name of the update.

    Args:
      path: The file, which is replaced.
      version: See `Replaced`.
      token: See `Replaced`.
      step: See `Replaced`.
      nothing: No rows of one of the server's tables.
    """

    def __init__(
        self, path: pathlib.Path, *, version: int, token: int, step: int, nothing: Rows
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.id = uuid.uuid4().hex
        self._path = path
        self._file = path.open("wb")
        for part in _parts(path):  # Of another update.
            part.unlink(missing_ok=True)
        table = {"table": nothing.table, "dim": nothing.weights.shape[1]}
        place = {"version": version, "token": token, "step": step}
        self._write("begin", {"id": self.id} | place | table)

    def part(self, number: int) -> JsonDict:
        """Returns the arguments of an `UndoPart` in another process, as plain data."""
        os.fsync(self._file.fileno())  # The other process may be on another machine.
        path = str(self._path.absolute())
        return {"path": path, "number": number, "id": self.id}

    def add(self, rows: Rows) -> None:
        """Records rows that are served now."""
        self._write("rows", {"table": rows.table}, rows.ids, rows.weights)

    def add_dense(self, flat: np.ndarray) -> None:
        """Records the dense weights that are served now."""
        self._write("dense", {}, flat)

    def finish(self, *, version: int, token: int, step: int) -> None:
        """Records that the update is complete."""
        self._write("end", {"version": version, "token": token, "step": step})
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, kind: str, content: JsonDict, *arrays: np.ndarray) -> None:
        _write(self._file, kind, content, *arrays)
        self._file.flush()


class UndoPart:
    """Adds rows to what an `UndoLog` of another process keeps.

    Args:
      path: The file of the `UndoLog`.
      number: Distinguishes the processes.
      id: That of the `UndoLog`.

    Raises:
      FileNotFoundError: If that file is not found here.
    """

    def __init__(self, path: str, number: int, id: str) -> None:
        main = pathlib.Path(path)
        begin = next(_records(main), None) if main.exists() else None
        if begin is None or begin[1].get("id") != id:
            raise FileNotFoundError(
                f"{main.parent} must be a folder that all tasks of the job share, "
                f"under the same path. {main.name}, which the chief wrote there, is "
                f"not found by process {os.getpid()}."
            )
        self._path = _part(main, number)
        with self._path.open("wb") as file:
            _write(file, "begin", {"id": id})

    def add(self, rows: Rows) -> None:
        """Records rows that are served now."""
        # Closed each time: a reader on another machine then sees it.
        with self._path.open("ab") as file:
            _write(file, "rows", {"table": rows.table}, rows.ids, rows.weights)
            file.flush()
            os.fsync(file.fileno())


def path(model_dir: pathlib.Path, address: str) -> pathlib.Path:
    """Returns the file of a server."""
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in address)
    return model_dir / _FOLDER / f"{name}.undo"


def hold_path(model_dir: pathlib.Path) -> pathlib.Path:
    """Returns the file that keeps the job from publishing, while it exists."""
    return model_dir / _FOLDER / _HOLD


def remove(file: pathlib.Path) -> None:
    """Removes what an update replaced."""
    for each in (file, *_parts(file)):
        each.unlink(missing_ok=True)


def read(file: pathlib.Path) -> Replaced | None:
    """Returns what an update replaced; None if there is no file."""
    if not file.exists():
        return None
    begin: JsonDict | None = None
    after, rows, dense = None, [], None
    for kind, content, arrays in _records(file):
        if kind == "begin":
            begin = content
        elif kind == "rows":
            rows.append(Rows(str(content["table"]), *arrays))
        elif kind == "dense":
            (dense,) = arrays
        else:
            after = content
    if begin is None:
        return None
    id_ = begin.pop("id", None)
    # The parts are of rows that were sent before all those of the file itself.
    of_parts = [rows for part in _parts(file) for rows in _rows_of_part(part, id_)]
    rows = of_parts + rows
    return Replaced(**begin, after=after, rows=tuple(reversed(rows)), dense=dense)


def _rows_of_part(part: pathlib.Path, id_: str | None) -> list[Rows]:
    records = _records(part)
    _, begin, _ = next(records, ("", {}, []))
    if id_ is None or begin.get("id") != id_:
        return []  # It is of another update.
    return [Rows(str(content["table"]), *arrays) for _, content, arrays in records]


def _part(file: pathlib.Path, number: int) -> pathlib.Path:
    return file.with_name(f"{file.name}.{number}")


def _parts(file: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file.parent.glob(f"{file.name}.*"))


def _write(file: Any, kind: str, content: JsonDict, *arrays: np.ndarray) -> None:
    for part in (np.array([kind, json.dumps(content)]), *arrays):
        np.save(file, part, allow_pickle=False)


def _records(
    file: pathlib.Path,
) -> Iterator[tuple[str, JsonDict, list[np.ndarray]]]:
    counts = {"rows": 2, "dense": 1}
    with file.open("rb") as opened:
        while True:
            try:
                kind, text = _load(opened).tolist()
                yield (
                    kind,
                    json.loads(text),
                    [_load(opened) for _ in range(counts.get(kind, 0))],
                )
            except (EOFError, ValueError, OSError):
                return  # The end, or a record that was cut off: nothing replaced it.


def _load(file: Any) -> np.ndarray:
    found: np.ndarray = np.load(file, allow_pickle=False)
    return found
