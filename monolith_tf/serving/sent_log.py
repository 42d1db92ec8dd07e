"""The ids whose rows a running job sent to servers after its checkpoints.

    <model_dir>/sent/<branch>-<number>.ids

A job that is killed resumes from a checkpoint, while servers have later rows. The next
run sends the present rows of these ids, so that the servers are where the job is.
"""

import io
import os
import pathlib
import threading
from collections.abc import Iterator

import numpy as np
from absl import logging

from monolith_tf.lineage import Lineage
from monolith_tf.training import lineage_mark

_FOLDER = "sent"


class SentLog:
    """Records ids before their rows are sent.

    Args:
      model_dir: The job's folder.
      lineage: The job's.
    """

    def __init__(self, model_dir: pathlib.Path, lineage: Lineage) -> None:
        self._model_dir = model_dir
        self._folder = model_dir / _FOLDER
        self._lineage = lineage
        self._branch = lineage.branches[-1].id
        self._lock = threading.Lock()
        self._newest: dict[pathlib.Path, int] = {  # File -> newest step in it.
            path: max((newest for _, newest, _ in _records(path)), default=0)
            for path in self._folder.glob(f"{self._branch}-*.ids")
        }
        self._file: io.BufferedWriter | None = None
        self._known: dict[str, np.ndarray] = {}  # Table -> sorted ids in the file.
        self._marked = -1

    def add(self, table: str, ids: np.ndarray, newest: int) -> None:
        """Records ids of a table; the disk has them on return.

        Args:
          table: The table.
          ids: The ids, `[n]`, int64.
          newest: The newest step of their rows.
        """
        with self._lock:
            if newest > self._marked:
                lineage_mark.write(self._model_dir, self._lineage, newest)
                self._marked = newest
            known = self._known.get(table, np.zeros([0], np.int64))
            new = np.setdiff1d(ids, _found(known, ids), assume_unique=True)
            if not len(new):
                return
            # Two sorted runs are merged in linear time.
            self._known[table] = np.sort(np.concatenate([known, new]), kind="stable")
            file = self._file or self._begin()
            name = pathlib.Path(file.name)
            self._newest[name] = max(newest, self._newest[name])
            # One write of one record, so that a crash can only cut off the last one.
            record = io.BytesIO()
            for part in (np.array([table]), np.array([newest]), new):
                np.save(record, part, allow_pickle=False)
            file.write(record.getvalue())
            file.flush()
            os.fsync(file.fileno())

    def _begin(self) -> io.BufferedWriter:
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while (self._folder / f"{self._branch}-{number}.ids").exists():
            number += 1
        path = self._folder / f"{self._branch}-{number}.ids"
        self._newest[path] = 0
        self._file = path.open("wb")
        return self._file

    def saved(self, oldest: int) -> None:
        """Called after a checkpoint was written.

        Args:
          oldest: The step of the oldest checkpoint there is.
        """
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            # A row that was sent before and changes again is recorded again: the
            # former record may be of an older checkpoint's rows.
            self._known.clear()
            for path, newest in list(self._newest.items()):
                if newest <= oldest:
                    path.unlink(missing_ok=True)
                    del self._newest[path]

    def forget_others(self) -> None:
        """Removes the records of former runs, when no server has their rows."""
        for path in self._folder.glob("*.ids"):
            if path.name.rpartition("-")[0] != self._branch:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def lost(model_dir: pathlib.Path, lineage: Lineage) -> dict[str, np.ndarray]:
    """Returns table -> ids that were sent with values which are not of a lineage.

    Args:
      model_dir: The job's folder.
      lineage: The job's, after it resumed.
    """
    left = {
        branch.id: after.step
        for branch, after in zip(lineage.branches, lineage.branches[1:], strict=False)
    }
    own = lineage.branches[-1].id
    found: dict[str, list[np.ndarray]] = {}
    for path in sorted((model_dir / _FOLDER).glob("*.ids")):
        branch = path.name.rpartition("-")[0]
        if branch == own:
            continue
        for table, newest, ids in _records(path):
            # Of a line that this one did not come from, all is lost.
            if newest > left.get(branch, -1):
                found.setdefault(table, []).append(ids)
    return {table: np.unique(np.concatenate(ids)) for table, ids in found.items()}


def _found(known: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Returns which of some ids are in a sorted array."""
    if not len(known):
        return ids[:0]
    places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return ids[known[places] == ids]


def _records(path: pathlib.Path) -> Iterator[tuple[str, int, np.ndarray]]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while file.tell() < size:
            try:
                table, newest, ids = (
                    np.load(file, allow_pickle=False) for _ in range(3)
                )
            except (ValueError, EOFError, OSError):
                # Its rows were never sent: they are sent after it is on the disk.
                logging.info("%s ends in the middle of a record.", path)
                return
            yield str(table[0]), int(newest[0]), ids
