"""Begins a job with what fits of other jobs' checkpoints."""

import dataclasses
import pathlib

from absl import logging

from monolith_tf.embedding import sealed
from monolith_tf.experiment import build
from monolith_tf.experiment import dropped_tables
from monolith_tf.experiment import fitting_rows
from monolith_tf.experiment import id_types as id_types_lib
from monolith_tf.experiment import input_order
from monolith_tf.experiment import resumed_settings
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import step as step_lib


def started(
    job: build.Job, fixed: build.Fixed
) -> tuple[build.Fixed, step_lib.TrainStep]:
    """Takes over the model's variables that fit by path and shape, and tables' rows.

    The global step, the position in the data and the optimizers of the model's
    variables stay at their beginning. Inputs are in the order of the checkpoints. Where
    a checkpoint of a `model_dir` turns out to be damaged while it is read, all begins
    once more with the one before it.

    Args:
      job: The job. Its config's `trainer.warm_start` names checkpoints, or `model_dir`s
        whose best or newest whole checkpoint is taken; what a later one has replaces
        what a former one had.
      fixed: What a new job settles.

    Returns:
      The same with the inputs' order, and the step function.

    Raises:
      CheckpointError: If there is no checkpoint, or a table's ids, the width of its
        rows or their optimizer are of another kind in it.
      DamagedCheckpointError: If a checkpoint that is named itself is damaged.
    """
    origins = [_Origin(pathlib.Path(path)) for path in job.config.trainer.warm_start]
    while True:
        inputs = input_order.of_config(job.config)
        for origin in origins:
            inputs = input_order.after(origin.checkpoint, inputs)
        fixed = dataclasses.replace(fixed, inputs=inputs)
        step = job.train_step(fixed, fresh=True)
        missing: set[str] | None = None
        for number, origin in enumerate(origins):
            try:
                lacks = _take(
                    origin.checkpoint, job, fixed, step, keep_others=number > 0
                )
            except sealed.DamagedError as error:
                origin.pass_over(error)
                break
            missing = lacks if missing is None else missing & lacks
        else:
            _log(origins, step, missing or set())
            return fixed, step
        del step  # Two of them may be more than there is memory for.


def _take(
    checkpoint: checkpoint_lib.Checkpoint,
    job: build.Job,
    fixed: build.Fixed,
    step: step_lib.TrainStep,
    *,
    keep_others: bool,
) -> set[str]:
    """Takes over what fits of a checkpoint; returns the variables that it lacks."""
    store, config = step.network.store, job.config
    id_types_lib.check_warm_start(checkpoint, fixed.id_types)
    fitting_rows.check(checkpoint, store.tables, config)
    lacks = checkpoint_lib.restore_matching(checkpoint, step.state, "model/")
    store.restore(checkpoint.embedding_dir, keep_others=keep_others)
    resumed_settings.warn_of_inputs(checkpoint, config)
    variables = checkpoint_lib.named_variables(step.state)
    if any(path.startswith("model/") and path not in lacks for path in variables):
        resumed_settings.warn_of_places(checkpoint, fixed.inputs)
    return set(lacks)


def _log(origins: list["_Origin"], step: step_lib.TrainStep, missing: set[str]) -> None:
    """Says what was taken, and what was not."""
    tables = [table.name for table in step.network.store.tables]
    for origin in origins:
        logging.info("Warm start from %s.", origin.checkpoint.path)
        left_over = dropped_tables.left_over(origin.checkpoint, tables)
        for name, rows in left_over.items():
            if rows:
                logging.warning(
                    "`trainer.warm_start`: %s has the table `%s` with %d rows, which "
                    "are not taken over: the config names no such table.",
                    origin.checkpoint.path,
                    name,
                    rows,
                )
    if missing:
        logging.info(
            "%d dense variables keep their initial values: %s.",
            len(missing),
            ", ".join(sorted(missing)[:10]),
        )


class _Origin:
    """An entry of `trainer.warm_start`.

    Attributes:
      checkpoint: The checkpoint that is taken.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._is_exact = (path / "manifest.json").exists()
        self._checkpoints = checkpoint_lib.CheckpointDir(path / "checkpoints")
        self._whole = self._checkpoints.whole(prefer_best=True)
        self.checkpoint = self._exact() if self._is_exact else self._next()

    def pass_over(self, error: sealed.DamagedError) -> None:
        """Goes on to the whole checkpoint before the present one, which is damaged.

        Raises:
          CheckpointError: If there is none.
          DamagedCheckpointError: If the present one is named itself.
        """
        if self._is_exact:
            raise self._damaged(error)
        logging.warning("Passing over a checkpoint while reading it: %s", error)
        self.checkpoint = self._next()

    def _next(self) -> checkpoint_lib.Checkpoint:
        found = next(self._whole, None)
        if found is not None:
            return found
        if self._checkpoints.names():
            raise checkpoint_lib.CheckpointError(
                f"`trainer.warm_start`: no checkpoint in {self._checkpoints.path} can "
                "be used; the warnings above say why. Name another job, or leave it "
                "out."
            )
        raise checkpoint_lib.CheckpointError(
            f"`trainer.warm_start`: {self._path} is neither a checkpoint nor a "
            "model_dir with checkpoints."
        )

    def _exact(self) -> checkpoint_lib.Checkpoint:
        try:
            return checkpoint_lib.open_checkpoint(self._path)
        except checkpoint_lib.DamagedCheckpointError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: sealed.DamagedError) -> checkpoint_lib.CheckpointError:
        """What to say of a checkpoint that is named itself, and is damaged."""
        beside = checkpoint_lib.CheckpointDir(self._path.parent)
        other = next(beside.whole(before=self._path.name), None) or beside.latest()
        way_out = (
            "There is no whole checkpoint beside it: name another job, or leave it out."
            if other is None
            else f"Name {other.path} in its place, which is whole."
        )
        what = getattr(error, "what", str(error))
        return checkpoint_lib.DamagedCheckpointError(
            f"`trainer.warm_start`: {what}", way_out
        )
