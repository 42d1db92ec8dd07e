"""The progress of a running job, from the files that its tasks write."""

import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Callable
from collections.abc import Mapping

from monolith_tf.distribute import roster
from monolith_tf.launch.states import TaskState
from monolith_tf.types import JsonDict


@dataclasses.dataclass(frozen=True)
class Row:
    """The values to show for a task.

    Attributes:
      name: The task's name.
      state: Its state.
      steps: For the chief, the job's step; for a worker, the steps since its start;
        None if not known.
      examples_per_sec: For the chief, the job's speed; for a worker, its own.
      restarts: How often it was restarted.
    """

    name: str
    state: str
    steps: int | None
    examples_per_sec: float | None
    restarts: int


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A worker's progress at some time."""

    pid: int
    counter: int
    examples: int
    time: float
    per_sec: float | None = None


class Status:
    """Reads the state of a job's tasks."""

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        *,
        batch_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a reader.

        Args:
          model_dir: The job's folder.
          batch_size: Examples per step.
          clock: Returns the time.
        """
        self._model_dir = model_dir
        self._batch_size = batch_size
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def chief(self, pids: Mapping[str, int]) -> roster.Entry | None:
        """Returns the chief's file; None if its process has written none."""
        return self._entry("chief", pids)

    def rows(
        self, states: Mapping[str, TaskState], pids: Mapping[str, int]
    ) -> list[Row]:
        """Returns a row for each task."""
        return [self._row(name, state, pids) for name, state in states.items()]

    def _row(self, name: str, state: TaskState, pids: Mapping[str, int]) -> Row:
        entry = self._entry(name, pids)
        shown, restarts = str(state.state), max(state.restarts, 0)
        if shown == "running":
            shown = str(entry["state"]) if entry is not None else "starting"
        elif shown == "waiting":
            shown = "restarting"
        steps = per_sec = None
        if entry is not None and name == "chief":
            steps, per_sec = entry.get("step"), entry.get("examples_per_sec")
        elif entry is not None and state.task.kind == "worker":
            steps, per_sec = self._worker(name, entry)
        return Row(name, shown, steps, per_sec, restarts)

    def _worker(
        self, name: str, entry: roster.Entry
    ) -> tuple[int | None, float | None]:
        examples = entry.get("examples")
        if examples is None:
            return None, None
        now, old = self._clock(), self._seen.get(name)
        new = _Seen(entry["pid"], entry["counter"], examples, now)
        if old is None or old.pid != new.pid or new.counter < old.counter:
            self._seen[name] = new
        elif new.counter != old.counter and now > old.time:
            per_sec = (examples - old.examples) / (now - old.time)
            self._seen[name] = dataclasses.replace(new, per_sec=per_sec)
        return examples // self._batch_size, self._seen[name].per_sec

    def _entry(self, name: str, pids: Mapping[str, int]) -> roster.Entry | None:
        """Returns a task's file, unless an earlier process wrote it."""
        entry = roster.read(self._model_dir, name)
        if entry is None or name not in pids or entry.get("pid") != pids[name]:
            return None
        return entry


class MetricsTail:
    """Follows a `metrics.jsonl` from its current end."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)
        self._position = self._size()

    def read(self) -> list[JsonDict]:
        """Returns the lines that were added since the last call."""
        # A chief that resumes cuts off the lines that it writes again.
        self._position = min(self._position, self._size())
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        records = []
        for line in whole.splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:  # The file was cut off during the read.
                continue
        return records

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
