"""The checkpoints of a job, and which of them is used where none is named."""

import pathlib
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from monolith_tf.config import schema
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir

_Result = TypeVar("_Result")


def of(config: schema.ExperimentConfig) -> checkpoint_dir.CheckpointDir:
    """Returns the checkpoints of a job."""
    return checkpoint_dir.CheckpointDir(
        pathlib.Path(config.model_dir) / "checkpoints",
        keep=config.trainer.keep_checkpoints,
    )


def use(
    checkpoints: checkpoint_dir.CheckpointDir,
    path: str | None,
    function: Callable[[checkpoint_lib.Checkpoint], _Result],
    *,
    prefer_best: bool,
) -> _Result:
    """Calls a function with the checkpoint of a path, or the best or newest one.

    Args:
      checkpoints: The job's checkpoints.
      path: A checkpoint's folder, or None.
      function: Called as in `CheckpointDir.use_latest`.
      prefer_best: Whether to take the best one, if there is one, and not the newest.

    Returns:
      What the function returned.

    Raises:
      CheckpointError: If there is no checkpoint, or none can be used.
    """
    if path is not None:
        return function(checkpoint_lib.open_checkpoint(path))

    def log_and_use(found: checkpoint_lib.Checkpoint) -> _Result:
        _log_which(checkpoints, found, prefer_best=prefer_best)
        return function(found)

    used = checkpoints.use_latest(log_and_use, prefer_best=prefer_best)
    if used is None:
        raise checkpoint_lib.CheckpointError(
            f"There is no checkpoint in {checkpoints.path}. Train first: "
            "`monolith-tf train CONFIG`."
        )
    return used


def _log_which(
    checkpoints: checkpoint_dir.CheckpointDir,
    checkpoint: checkpoint_lib.Checkpoint,
    *,
    prefer_best: bool,
) -> None:
    """Logs which checkpoint is used where none is named."""
    mark = checkpoints.best_mark() if prefer_best else {}
    newest = checkpoints.names()[-1]
    what = "the newest one"
    if mark.get("checkpoint") == checkpoint.path.name:
        what = f"the best by `{mark['metric']}`, {mark['value']:.5f}"
        if newest != checkpoint.path.name:
            what += f"; the newest one is {newest}"
    elif newest != checkpoint.path.name:
        what = f"since {newest} cannot be used"
    logging.info("Using step %d: %s, %s.", checkpoint.step, checkpoint.path, what)
