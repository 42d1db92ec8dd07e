"""Saves how far a job has trained, in a file that outlives its checkpoints."""

import json
import os
import pathlib
import threading
from collections.abc import Iterable

from absl import logging

from monolith_tf import lineage as lineage_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.types import JsonDict

_NAME = "lineage.json"
_LOCK = threading.Lock()  # A publisher writes it too, in its own threads.


def write(model_dir: pathlib.Path, lineage: lineage_lib.Lineage, step: int) -> None:
    """Saves a step before its values are visible outside of the process.

    An earlier step than the file's, of the same lineage, changes nothing.
    """
    with _LOCK:
        if _reached(model_dir / _NAME, lineage) < step:
            _write(model_dir, lineage, step)


def owns(model_dir: pathlib.Path, branches: Iterable[str]) -> bool:
    """Returns whether the job trained some branches in this folder.

    Args:
      model_dir: The job's folder.
      branches: Their ids. Those that a copied folder was copied with are not its own.
    """
    return set(branches) <= set(_content(model_dir / _NAME).get("own", ()))


def _reached(path: pathlib.Path, lineage: lineage_lib.Lineage) -> int:
    """Returns the step in the file; -1 if it is not of a lineage."""
    mark = _content(path)
    return int(mark["newest"]) if mark.get("lineage") == lineage.to_json() else -1


def _content(path: pathlib.Path) -> JsonDict:
    """Returns the file's content; nothing if it is damaged, or a copy."""
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        if mark["file"] == _identity(path.stat()) and mark["newest"] >= 0:
            return dict(mark)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def _write(model_dir: pathlib.Path, lineage: lineage_lib.Lineage, step: int) -> None:
    model_dir.mkdir(parents=True, exist_ok=True)
    own = [*_content(model_dir / _NAME).get("own", ())]
    own += [branch.id for branch in lineage.branches[-1:] if branch.id not in own]
    temporary = model_dir / f".{_NAME}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        # It holds its own identity, so a copy can be recognized.
        content = {
            "lineage": lineage.to_json(),
            "newest": step,
            "own": own,
            "file": _identity(os.fstat(file.fileno())),
        }
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(model_dir / _NAME)


def resumed(
    model_dir: pathlib.Path, checkpoint: checkpoint_lib.Checkpoint
) -> lineage_lib.Lineage:
    """Returns the lineage of a job that resumes from a checkpoint.

    It is the checkpoint's own, unless the job had trained further, or its folder is a
    copy whose original may also train on: then its later steps differ from others of
    the same number, and it becomes a new branch.

    Raises:
      CheckpointError: If the file is damaged.
    """
    lineage = lineage_lib.of_state(checkpoint.manifest["state"])
    if not lineage.branches:
        return lineage.branched(checkpoint.step)
    path = model_dir / _NAME
    if not path.exists():
        logging.warning(
            "%s is missing, which says how far the job had trained: its folder is a "
            "partial copy, or of version 0.1.0. %s",
            path,
            _consequence(checkpoint),
        )
        return lineage.branched(checkpoint.step)
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        reached, newest = lineage_lib.from_json(mark["lineage"]), int(mark["newest"])
        written = mark.get("file")
    except (ValueError, KeyError, TypeError) as error:
        raise checkpoint_lib.CheckpointError(
            f"{path} is damaged: {error!r}. It says how far the job had trained. "
            "Remove it, and export the job again before you publish its rows."
        ) from None
    if written != _identity(path.stat()):
        logging.warning(
            "%s is not where it was written: the job's folder was copied, or its "
            "storage was mounted elsewhere, and the original may train on. %s",
            path,
            _consequence(checkpoint),
        )
    elif reached == lineage and newest <= checkpoint.step:
        return lineage
    else:
        logging.warning(
            "The job had reached step %d and resumes from step %d. %s",
            newest,
            checkpoint.step,
            _consequence(checkpoint),
        )
    return lineage.branched(checkpoint.step, after=reached)


def _consequence(checkpoint: checkpoint_lib.Checkpoint) -> str:
    return (
        "From here on it is a new branch. Servers that have rows of steps later than "
        f"{checkpoint.step} are brought back to it when the job publishes; if one "
        "refuses, export a new version: `monolith-tf export CONFIG`."
    )


def _identity(status: os.stat_result) -> JsonDict:
    """Returns a unique identity of a file, which stays when its folder is moved."""
    return {"device": status.st_dev, "inode": status.st_ino}
