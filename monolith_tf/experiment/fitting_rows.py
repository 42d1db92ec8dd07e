"""Checks that a checkpoint's rows fit the tables of a config."""

from collections.abc import Iterator
from typing import Any

from monolith_tf.config import schema
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.optimizers import rules as optimizers
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.experiment import resumed_optimizers
from monolith_tf.training import checkpoint as checkpoint_lib


def check(
    checkpoint: checkpoint_lib.Checkpoint,
    tables: tuple[TableSpec, ...],
    config: schema.ExperimentConfig,
) -> None:
    """Compares the widths of rows, and the optimizers whose state they hold.

    Args:
      checkpoint: The checkpoint.
      tables: The tables to restore.
      config: The config of the tables.

    Raises:
      CheckpointError: If a table that both have differs; the message gives the config's
        key and its old value.
    """
    optimizers_before = resumed_optimizers.saved(checkpoint)
    dims_before = _saved_dims(checkpoint)
    for table in tables:
        for part, key in _parts(table, config):
            dim = dims_before.get((table.name, part.name), part.dim)
            if dim != part.dim:
                raise checkpoint_lib.CheckpointError(
                    f"{checkpoint.path}: the rows of table `{table.name}` have {dim} "
                    f"values, but `{key}.dim` is {part.dim}. Set `{key}.dim: {dim}`, "
                    "or train in another `model_dir`."
                )
            before = optimizers_before.get(table.name, {}).get(part.name)
            if before is None:
                continue
            plain = {name: v for name, v in before.items() if name != "was"}
            spec = optimizer_spec.row_optimizer(**plain)
            if not optimizers.have_like_state(spec.kind, part.optimizer.kind):
                raise checkpoint_lib.CheckpointError(
                    f"{checkpoint.path}: the rows of table `{table.name}` hold the "
                    f"state of the optimizer {_shown(spec)}, but `{key}.optimizer` is "
                    f"now {_shown(part.optimizer)}, which has another state. Set "
                    f"`{key}.optimizer: {_shown(spec)}`, or train in another "
                    "`model_dir`."
                )


def _parts(
    table: TableSpec, config: schema.ExperimentConfig
) -> Iterator[tuple[SliceSpec, str]]:
    """Yields the slices of a table, and the config key of each."""
    key = schema.table_key(config, table.name)
    for number, part in enumerate(table.row_slices()):
        yield part, f"{key}.slices[{number}]" if table.slices else key


def _saved_dims(checkpoint: checkpoint_lib.Checkpoint) -> dict[tuple[str, str], int]:
    """Returns (table, slice) -> number of values of a row."""
    return {
        (table["name"], part["name"]): part["dim"]
        for group in checkpoint.manifest["embedding"]["groups"]
        for table in group["tables"]
        for part in group["slices"]
    }


def _shown(spec: Any) -> str:
    """Returns an optimizer as in a config, without default values."""
    plain = optimizer_spec.to_plain(spec)
    default = optimizer_spec.to_plain(optimizer_spec.row_optimizer(spec.name))
    given = {"name": spec.name}
    given |= {key: value for key, value in plain.items() if value != default[key]}
    return "{" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}"
