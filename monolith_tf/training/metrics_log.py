"""`metrics.jsonl`: one JSON object per line, for programs to read."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from monolith_tf import atomic


class MetricsLog:
    """Appends to a `metrics.jsonl`, and cuts it back when a job resumes.

    Each line has `phase` (train, eval, test, ...), `step`, and numbers by name. NaN and
    infinite numbers are written as null.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)

    def append(self, phase: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes one line."""
        record = {"phase": phase, "step": step}
        record.update({name: _finite(value) for name, value in values.items()})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Returns all complete lines; skips a line that was cut off by a crash."""
        if not self._path.exists():
            return []
        records = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def cut_back(self, step: int) -> None:
        """Drops the lines of later steps, which a resumed job writes again."""
        if not self._path.exists():
            return
        kept = [record for record in self.read() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        atomic.write_text(self._path, text)


def _finite(value: Any) -> Any:
    if isinstance(value, str | bool | int) or value is None:
        return value
    value = float(value)
    return value if math.isfinite(value) else None
