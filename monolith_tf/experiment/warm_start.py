"""Begins a job with what fits of other jobs' checkpoints."""

import pathlib
from collections.abc import Mapping

from absl import logging

from monolith_tf.config import schema
from monolith_tf.experiment import dropped_tables
from monolith_tf.experiment import fitting_rows
from monolith_tf.experiment import id_types as id_types_lib
from monolith_tf.experiment import resumed_settings
from monolith_tf.features import columns as columns_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import step as step_lib


def apply(
    config: schema.ExperimentConfig,
    step: step_lib.TrainStep,
    id_types: Mapping[str, columns_lib.IdType],
) -> None:
    """Takes over the model's variables that fit by path and shape, and tables' rows.

    The global step, the position in the data and the optimizers of the model's
    variables stay at their beginning.

    Args:
      config: The job's. Its `trainer.warm_start` names checkpoints, or `model_dir`s
        whose best or newest checkpoint is taken; what a later one has replaces what a
        former one had.
      step: The step function, its variables made.
      id_types: Table -> what its ids are made of.

    Raises:
      CheckpointError: If there is no checkpoint, or a table's ids, the width of its
        rows or their optimizer are of another kind in it.
    """
    missing: set[str] | None = None
    store = step.network.store
    for number, path in enumerate(config.trainer.warm_start):
        checkpoint = _open(pathlib.Path(path))
        id_types_lib.check_warm_start(checkpoint, id_types)
        fitting_rows.check(checkpoint, store.tables, config)
        resumed_settings.warn_of_inputs(checkpoint, config)
        lacks = set(checkpoint_lib.restore_matching(checkpoint, step.state, "model/"))
        missing = lacks if missing is None else missing & lacks
        store.restore(checkpoint.embedding_dir, keep_others=number > 0)
        logging.info("Warm start from %s.", checkpoint.path)
        tables = [table.name for group in store.groups for table in group.tables]
        for name, rows in dropped_tables.left_over(checkpoint, tables).items():
            if rows:
                logging.warning(
                    "`trainer.warm_start`: %s has the table `%s` with %d rows, which "
                    "are not taken over: the config names no such table.",
                    checkpoint.path,
                    name,
                    rows,
                )
    if missing:
        logging.info(
            "%d dense variables keep their initial values: %s.",
            len(missing),
            ", ".join(sorted(missing)[:10]),
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
