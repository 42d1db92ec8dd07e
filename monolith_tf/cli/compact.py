"""Turns deltas into a whole checkpoint, also while the job runs.

The newest usable checkpoint of MODEL_DIR, if it is a delta, then holds all rows itself.
Its state is the same bit for bit, and later deltas stay valid. The job removes what is
no longer needed. Memory holds the ids of all rows that changed since the last whole
checkpoint, 8 bytes each and up to three times that for a moment, not the tables.
"""

import argparse
import pathlib
import sys
import time
from typing import Any

from monolith_tf.cli import errors
from monolith_tf.cli import tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument(
        "model_dir",
        metavar="MODEL_DIR",
        help="a job's folder, or the folder of one checkpoint",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="write the whole checkpoint to this new folder instead, for example for "
        "`monolith-tf export --checkpoint DIR`",
    )
    parser.add_argument(
        "--every",
        metavar="TIME",
        help="repeat at this distance, such as 10m, until interrupted",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf.training import checkpoint_spec

    path = pathlib.Path(arguments.model_dir)
    secs: float | None = None
    if arguments.every is not None:
        if arguments.output is not None:
            raise errors.UsageError("`--every` and `--output` exclude each other.")
        try:
            secs = checkpoint_spec.seconds("--every", arguments.every)
        except ValueError as error:
            raise errors.UsageError(str(error)) from None
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    while True:
        _compact(path, arguments.output, must_exist=secs is None)
        if secs is None:
            return errors.DONE
        time.sleep(secs)


def _compact(path: pathlib.Path, output: str | None, *, must_exist: bool) -> None:
    """Compacts once, and prints what was done."""
    from monolith_tf.training import checkpoint_commit
    from monolith_tf.training import compaction

    checkpoint: Any = _find(path)
    if checkpoint is None:
        if must_exist:
            raise errors.UsageError(
                f"{path} is neither a checkpoint nor a model_dir with checkpoints."
            )
        return
    if output is not None:
        _show(compaction.copy(checkpoint, pathlib.Path(output)))
        return
    folder, step = checkpoint.path, checkpoint.step
    del checkpoint  # It must not hold the files that are no longer needed.
    try:
        done = compaction.in_place(folder)
    except checkpoint_commit.ReplacedError as error:
        if must_exist:
            raise ValueError(f"{error} Run the command again.") from None
        sys.stdout.write(f"{error}\n")
        return
    if done is None:
        sys.stdout.write(f"{folder} (step {step}) is whole already.\n")
    else:
        _show(done)


def _find(path: pathlib.Path) -> Any:
    from monolith_tf.training import checkpoint as checkpoint_lib
    from monolith_tf.training import checkpoint_dir

    if (path / "manifest.json").exists():
        return checkpoint_lib.open_checkpoint(path)
    return checkpoint_dir.CheckpointDir(path / "checkpoints").latest()


def _show(done: Any) -> None:
    sys.stdout.write(
        f"{done.path} (step {done.step}) is whole: {tables.size(done.bytes_after)}, "
        f"made of {done.links} checkpoints of {tables.size(done.bytes_before)}.\n"
    )
    sys.stdout.flush()
