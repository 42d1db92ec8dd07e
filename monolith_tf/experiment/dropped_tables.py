"""Checks for tables of a checkpoint that a config does not name, and would lose."""

from collections.abc import Iterable
from collections.abc import Mapping

from absl import logging

from monolith_tf.training import checkpoint as checkpoint_lib


def check(
    checkpoint: checkpoint_lib.Checkpoint,
    tables: Iterable[str],
    dropped: Iterable[str],
) -> None:
    """Checks that the config still names all tables with rows.

    Args:
      checkpoint: The job's own checkpoint.
      tables: The tables of the config.
      dropped: Tables whose rows the config drops.

    Raises:
      CheckpointError: If a table with rows is neither named nor dropped.
    """
    tables, dropped = list(tables), set(dropped)
    lost = {n: rows for n, rows in left_over(checkpoint, tables).items() if rows}
    lost = {name: rows for name, rows in lost.items() if name not in dropped}
    if not lost:
        return
    new = ", ".join(f"`{name}`" for name in _new(checkpoint, tables))
    shown = ", ".join(f"`{name}` with {rows} rows" for name, rows in lost.items())
    raise checkpoint_lib.CheckpointError(
        f"{checkpoint.path} has tables that the config does not name: {shown}. "
        + (f"New in the config, and empty: {new}. " if new else "")
        + "Give the features' table its old name (`table` of a feature, `name` in "
        "`tables`), or set `trainer.drop_tables: "
        f"[{', '.join(lost)}]` to continue without these rows."
    )


def log(
    checkpoint: checkpoint_lib.Checkpoint,
    tables: Iterable[str],
) -> None:
    """Logs which tables start empty, and which tables are dropped."""
    tables = list(tables)
    for name in _new(checkpoint, tables):
        logging.info("The table `%s` is new: it starts empty.", name)
    for name, rows in left_over(checkpoint, tables).items():
        if rows:
            logging.warning(
                "The table `%s` is dropped with %d rows, as set by "
                "`trainer.drop_tables`.",
                name,
                rows,
            )


def left_over(
    checkpoint: checkpoint_lib.Checkpoint, tables: Iterable[str]
) -> dict[str, int]:
    """Returns table -> number of rows, for a checkpoint's tables not in `tables`."""
    saved, tables = _saved(checkpoint), set(tables)
    return {name: rows for name, rows in saved.items() if name not in tables}


def _new(checkpoint: checkpoint_lib.Checkpoint, tables: Iterable[str]) -> list[str]:
    saved = _saved(checkpoint)
    return [name for name in tables if name not in saved]


def _saved(checkpoint: checkpoint_lib.Checkpoint) -> Mapping[str, int]:
    entries = checkpoint.manifest["embedding"]["tables"]
    return {entry["name"]: entry["counters"]["rows"] for entry in entries}
