"""Dense variables: their paths, and their part of a checkpoint."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf import variable_paths
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import former_paths
from monolith_tf.training.checkpoint import Checkpoint

named = variable_paths.named

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def save(root: tf.Module, prefix: pathlib.Path) -> dict[str, list[Any]]:
    """Writes the dense variables below `root` to files of a checkpoint.

    Args:
      root: Holds the variables.
      prefix: How the paths of the files begin.

    Returns:
      Path -> shape and dtype, for the manifest.
    """
    variables = named(root)
    tf.train.Checkpoint(**_slots(variables)).write(str(prefix))
    return {path: _kind(variable) for path, variable in variables.items()}


def values(checkpoint: Checkpoint, prefix: str) -> dict[str, np.ndarray]:
    """Returns path -> value of a checkpoint's variables whose paths have a prefix.

    Raises:
      DamagedCheckpointError: If they are damaged.
    """
    file = checkpoint.dense_prefix
    try:
        reader = tf.train.load_checkpoint(file)
        return {
            path: np.asarray(
                # TensorFlow doubles each dot of an attribute's name.
                reader.get_tensor(
                    f"{path.replace('/', '.').replace('.', '..')}{_VALUE}"
                )
            )
            for path in checkpoint.manifest["variables"]
            if path.startswith(prefix)
        }
    except tf.errors.OpError as error:
        raise checkpoint_lib.DamagedCheckpointError(
            f"{file} is damaged: {error.message}"
        ) from None
    finally:
        name = file.rpartition("/")[2]
        checkpoint_lib.check_files(checkpoint, f"{name}.")


def restore(checkpoint: Checkpoint, root: tf.Module) -> None:
    """Restores the dense variables below `root` from a checkpoint.

    Raises:
      CheckpointError: If names, shapes or types differ; lists the differences.
    """
    variables = named(root)
    saved = checkpoint.manifest["variables"]
    found = former_paths.find(variables, saved)
    wrong = []
    for path, variable in variables.items():
        here, there = _kind(variable), saved.get(found.paths[path])
        if there is None:
            wrong.append(f"the config has `{path}` {here}; the checkpoint lacks it")
        elif there != here:
            wrong.append(
                f"`{path}` is {there} in the checkpoint and {here} in the config"
            )
    known = {*found.paths.values(), *found.unneeded}
    wrong += [
        f"the checkpoint has `{path}` {there}; the config lacks it"
        for path, there in saved.items()
        if path not in known
    ]
    if wrong:
        raise checkpoint_lib.CheckpointError(
            f"{checkpoint.path} does not fit the config:\n  "
            + "\n  ".join(wrong[:20])
            + ("" if len(wrong) <= 20 else f"\n  and {len(wrong) - 20} more")
            + "\nFix the config, or train in another `model_dir` (with "
            "`trainer.warm_start` to restore matching variables)."
        )
    _read(checkpoint, variables, found)


def restore_matching(
    checkpoint: Checkpoint, root: tf.Module, prefix: str = ""
) -> list[str]:
    """Restores the dense variables that match by path, shape and type.

    Args:
      checkpoint: The checkpoint.
      root: Holds the variables.
      prefix: Prefix of their paths; other variables stay unchanged.

    Returns:
      The paths that did not match.
    """
    variables = {
        path: variable
        for path, variable in named(root).items()
        if path.startswith(prefix)
    }
    saved = checkpoint.manifest["variables"]
    found = former_paths.find(variables, saved)
    fitting = {
        path: variable
        for path, variable in variables.items()
        if saved.get(found.paths[path]) == _kind(variable)
    }
    _read(checkpoint, fitting, found)
    return sorted(set(variables) - set(fitting))


def _read(
    checkpoint: Checkpoint,
    variables: Mapping[str, tf.Variable],
    found: former_paths.Found,
) -> None:
    there = {found.paths[path]: variable for path, variable in variables.items()}
    file = checkpoint.dense_prefix
    try:
        tf.train.Checkpoint(**_slots(there)).read(file).expect_partial()
        for path in variables.keys() & found.biases.keys():
            bias = tf.Variable(tf.zeros_like(variables[path]))
            former = {found.biases[path]: bias}
            tf.train.Checkpoint(**_slots(former)).read(file).expect_partial()
            variables[path].assign_sub(bias)
    except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as error:
        raise checkpoint_lib.DamagedCheckpointError(
            f"{file} is damaged: {error.message}"
        ) from None
    finally:
        # TensorFlow reports damage by many errors, and misses some.
        name = checkpoint.dense_prefix.rpartition("/")[2]
        checkpoint_lib.check_files(checkpoint, f"{name}.")


def _kind(variable: tf.Variable) -> list[Any]:
    """Returns shape and type, as manifests hold them."""
    return [list(variable.shape), variable.dtype.name]


def _slots(variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    """Returns attribute name for `tf.train.Checkpoint` -> variable."""
    return {path.replace("/", "."): variable for path, variable in variables.items()}
