"""How far a job has been, in a file that outlives its checkpoints."""

import json
import pathlib

from absl import logging

from monolith_tf import lineage as lineage_lib
from monolith_tf.training import checkpoint as checkpoint_lib

_NAME = "lineage.json"


def write(model_dir: pathlib.Path, lineage: lineage_lib.Lineage, step: int) -> None:
    """Notes a step before values of it can be seen outside of the process."""
    model_dir.mkdir(parents=True, exist_ok=True)
    content = {"lineage": lineage.to_json(), "newest": step}
    checkpoint_lib.write_text(model_dir / _NAME, json.dumps(content))


def resumed(
    model_dir: pathlib.Path, checkpoint: checkpoint_lib.Checkpoint
) -> lineage_lib.Lineage:
    """Returns the lineage of a job that goes on from a checkpoint.

    It is the checkpoint's own, unless the job had been further: then what it trains
    from here on is something else, and needs a name of its own.

    Raises:
      CheckpointError: If the file is damaged.
    """
    lineage = lineage_lib.of_state(checkpoint.manifest["state"])
    if not lineage.branches:
        return lineage.branched(checkpoint.step)
    path = model_dir / _NAME
    if not path.exists():
        return lineage
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        reached, newest = lineage_lib.from_json(mark["lineage"]), int(mark["newest"])
    except (ValueError, KeyError, TypeError) as error:
        raise checkpoint_lib.CheckpointError(
            f"{path} is damaged: {error!r}. It says how far the job had been. Remove "
            "it, and export the job again before you publish its rows."
        ) from None
    if reached == lineage and newest <= checkpoint.step:
        return lineage
    logging.warning(
        "The job had been at step %d and goes on from step %d. Servers that have newer "
        "rows than that must get a new export: `monolith-tf export CONFIG`.",
        newest,
        checkpoint.step,
    )
    return lineage.branched(checkpoint.step)
