"""The error message for a training step that runs out of memory."""

import tensorflow as tf

from monolith_tf.training import run as run_lib

_MOST_TABLES = 10
_UNITS = ("KiB", "MiB", "GiB", "TiB")


class OutOfMemoryError(MemoryError):
    """A training step ran out of memory; the message names the largest tables."""


def explain(run: run_lib.Run, error: tf.errors.ResourceExhaustedError) -> str:
    """Returns what uses memory, largest first, and what to do.

    Args:
      run: The run of the step.
      error: TensorFlow's error.
    """
    first_line = (error.message or "").strip().split("\n")[0]
    saved = "there is no checkpoint yet"
    if run.saved is not None:
        saved = f"the same command resumes from {run.saved.path}"
    return (
        f"A training step ran out of memory after step {run.progress.step}; {saved}. "
        f"{_tables(run)} Give the job more parameter servers (`cluster.ps`), give "
        "tables `max_bytes` with `when_full: evict_oldest`, let rows expire "
        "(`expire_after_days`), or use a smaller `data.batch_size`. TensorFlow says: "
        f"{first_line}"
    )


def _tables(run: run_lib.Run) -> str:
    try:
        tables = run.step.network.store.describe()
    except tf.errors.OpError as error:  # Memory is short, or a server is lost.
        return f"Its tables could not be counted ({type(error).__name__})."
    tables = sorted(tables, key=lambda table: -table.bytes)
    named = [
        f"`{table.name}` {table.rows:,} rows, {_size(table.bytes)}"
        for table in tables[:_MOST_TABLES]
    ]
    others = tables[_MOST_TABLES:]
    if others:
        rest = sum(table.bytes for table in others)
        named.append(f"{len(others)} smaller ones, {_size(rest)}")
    return f"Its tables: {'; '.join(named) or 'none'}."


def _size(num_bytes: float) -> str:
    for unit in _UNITS[:-1]:
        num_bytes /= 1024
        if num_bytes < 1024:
            return f"{num_bytes:,.1f} {unit}"
    return f"{num_bytes / 1024:,.1f} {_UNITS[-1]}"
