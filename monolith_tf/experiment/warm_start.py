"""Starts a job with the matching parts of other jobs' checkpoints."""

import dataclasses
import pathlib

from absl import logging

from monolith_tf.embedding.saved import sealed
from monolith_tf.experiment import build
from monolith_tf.experiment import dropped_tables
from monolith_tf.experiment import fitting_rows
from monolith_tf.experiment import id_types as id_types_lib
from monolith_tf.experiment import input_order
from monolith_tf.experiment import resumed_settings
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import dense_variables
from monolith_tf.training import step as step_lib


def started(
    job: build.Job, identity: build.JobIdentity
) -> tuple[build.JobIdentity, step_lib.TrainStep]:
    """Restores the model's variables that match by path and shape, and tables' rows.

    The global step, the position in the data and the optimizers of the model's
    variables start as in a new job. Inputs keep the order of the checkpoints. If a
    checkpoint of a `model_dir` turns out to be damaged while it is read, the warm start
    begins again with the one before it.

    Args:
      job: The job. Its config's `trainer.warm_start` names checkpoints, or `model_dir`s
        whose best or newest intact checkpoint is taken; later ones replace values of
        earlier ones.
      identity: What a new job decides once.

    Returns:
      The same with the inputs' order, and the step function.

    Raises:
      CheckpointError: If there is no checkpoint, or a table in it has ids of another
        type, rows of another width or another optimizer.
      DamagedCheckpointError: If a checkpoint that is named directly is damaged.
    """
    origins = [_Origin(pathlib.Path(path)) for path in job.config.trainer.warm_start]
    while True:
        inputs = input_order.of_config(job.config)
        for origin in origins:
            inputs = input_order.after(origin.checkpoint, inputs)
        identity = dataclasses.replace(identity, inputs=inputs)
        step = job.train_step(identity, fresh=True)
        missing: set[str] | None = None
        for number, origin in enumerate(origins):
            try:
                lacks = _take(
                    origin.checkpoint, job, identity, step, keep_others=number > 0
                )
            except sealed.DamagedError as error:
                origin.pass_over(error)
                break
            missing = lacks if missing is None else missing & lacks
        else:
            _log(origins, step, missing or set())
            return identity, step
        del step  # Memory may not suffice for two of them.


def _take(
    checkpoint: checkpoint_lib.Checkpoint,
    job: build.Job,
    identity: build.JobIdentity,
    step: step_lib.TrainStep,
    *,
    keep_others: bool,
) -> set[str]:
    """Restores the matching parts of a checkpoint; returns the missing variables."""
    store, config = step.network.store, job.config
    id_types_lib.check_warm_start(checkpoint, identity.id_types)
    fitting_rows.check(checkpoint, store.tables, config)
    lacks = dense_variables.restore_matching(checkpoint, step.state, "model/")
    base, *deltas = checkpoint.embedding_layers
    store.restore(base, deltas=deltas, keep_others=keep_others)
    resumed_settings.warn_of_inputs(checkpoint, config)
    variables = dense_variables.named(step.state)
    if any(path.startswith("model/") and path not in lacks for path in variables):
        resumed_settings.warn_of_places(checkpoint, identity.inputs)
    return set(lacks)


def _log(origins: list["_Origin"], step: step_lib.TrainStep, missing: set[str]) -> None:
    """Logs what was restored, and what was not."""
    tables = [table.name for table in step.network.store.tables]
    for origin in origins:
        logging.info("Warm start from %s.", origin.checkpoint.path)
        left_over = dropped_tables.left_over(origin.checkpoint, tables)
        for name, rows in left_over.items():
            if rows:
                logging.warning(
                    "`trainer.warm_start`: %s has the table `%s` with %d rows, which "
                    "are not restored: the config names no such table.",
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
      checkpoint: The checkpoint to restore.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._is_exact = (path / "manifest.json").exists()
        self._checkpoints = checkpoint_dir.CheckpointDir(path / "checkpoints")
        self._whole = self._checkpoints.whole(prefer_best=True)
        self.checkpoint = self._exact() if self._is_exact else self._next()

    def pass_over(self, error: sealed.DamagedError) -> None:
        """Replaces the current, damaged checkpoint by the intact one before it.

        Raises:
          CheckpointError: If there is none.
          DamagedCheckpointError: If the current one is named directly.
        """
        if self._is_exact:
            raise self._damaged(error)
        logging.warning("Skipping a checkpoint while reading it: %s", error)
        self.checkpoint = self._next()

    def _next(self) -> checkpoint_lib.Checkpoint:
        found = next(self._whole, None)
        if found is not None:
            return found
        if self._checkpoints.names():
            raise checkpoint_lib.CheckpointError(
                f"`trainer.warm_start`: no checkpoint in {self._checkpoints.path} can "
                "be used; the warnings above say why. Name another job, or remove it."
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
        """Returns the error for a damaged checkpoint that is named directly."""
        beside = checkpoint_dir.CheckpointDir(self._path.parent)
        other = next(beside.whole(before=self._path.name), None) or beside.latest()
        way_out = (
            "There is no intact checkpoint beside it: name another job, or remove it."
            if other is None
            else f"Name {other.path} instead, which is intact."
        )
        what = getattr(error, "what", str(error))
        return checkpoint_lib.DamagedCheckpointError(
            f"`trainer.warm_start`: {what}", way_out
        )
