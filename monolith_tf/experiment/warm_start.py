"""Begins a job with what fits of another job's checkpoint."""

import pathlib
from typing import Any

from absl import logging

from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import step as step_lib


def apply(path: str, step: step_lib.TrainStep, store: Any) -> None:
    """Takes over dense variables that fit by path and shape, and the tables' rows.

    The global step and the position in the data stay at 0.

    Args:
      path: A checkpoint, or a `model_dir` whose best or newest checkpoint is taken.
      step: The step function, its variables made.
      store: The embedding store.

    Raises:
      CheckpointError: If there is no checkpoint.
    """
    checkpoint = _open(pathlib.Path(path))
    missing = checkpoint_lib.restore_matching(checkpoint, step.state)
    store.restore(checkpoint.embedding_dir)
    step.step.assign(0)
    logging.info(
        "Warm start from %s; %d dense variables keep their initial values%s.",
        checkpoint.path,
        len(missing),
        ": " + ", ".join(missing[:10]) if missing else "",
    )


def _open(path: pathlib.Path) -> checkpoint_lib.Checkpoint:
    if (path / "manifest.json").exists():
        return checkpoint_lib.open_checkpoint(path)
    checkpoints = checkpoint_lib.CheckpointDir(path / "checkpoints")
    found = checkpoints.best() or checkpoints.latest()
    if found is None:
        raise checkpoint_lib.CheckpointError(
            f"`trainer.warm_start`: {path} is neither a checkpoint nor a model_dir "
            "with checkpoints."
        )
    return found
