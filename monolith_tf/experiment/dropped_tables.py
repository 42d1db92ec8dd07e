"""Tables of a checkpoint that a config does not name: their rows would be lost."""

from collections.abc import Iterable
from collections.abc import Mapping

from absl import logging

from monolith_tf.training import checkpoint as checkpoint_lib


def check(
    checkpoint: checkpoint_lib.Checkpoint,
    tables: Iterable[str],
    dropped: Iterable[str],
) -> None:
    """Checks that all tables with rows are still named.

    Args:
      checkpoint: The job's own checkpoint.
      tables: The tables of the config.
      dropped: Those whose rows the config gives up.

    Raises:
      CheckpointError: If a table with rows is neither named nor given up.
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
        + "Give the table of those features its former name (`table` of a feature, "
        "`name` in `tables`), or set `trainer.drop_tables: "
        f"[{', '.join(lost)}]` to go on without these rows."
    )


def log(
    checkpoint: checkpoint_lib.Checkpoint,
    tables: Iterable[str],
) -> None:
    """Says which tables begin empty, and whose rows are given up."""
    tables = list(tables)
    for name in _new(checkpoint, tables):
        logging.info("The table `%s` is new: it begins empty.", name)
    for name, rows in left_over(checkpoint, tables).items():
        if rows:
            logging.warning(
                "The table `%s` is dropped, with %d rows, as `trainer.drop_tables` "
                "says.",
                name,
                rows,
            )


def left_over(
    checkpoint: checkpoint_lib.Checkpoint, tables: Iterable[str]
) -> dict[str, int]:
    """Returns the rows of each of a checkpoint's tables that is not among `tables`."""
    saved, tables = _saved(checkpoint), set(tables)
    return {name: rows for name, rows in saved.items() if name not in tables}


def _new(checkpoint: checkpoint_lib.Checkpoint, tables: Iterable[str]) -> list[str]:
    saved = _saved(checkpoint)
    return [name for name in tables if name not in saved]


def _saved(checkpoint: checkpoint_lib.Checkpoint) -> Mapping[str, int]:
    entries = checkpoint.manifest["embedding"]["tables"]
    return {entry["name"]: entry["counters"]["rows"] for entry in entries}
