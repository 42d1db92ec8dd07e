"""Finds where in its data a job resumes, even if the data has changed.

A position is a number of batches. It refers to rows only together with the files, their
rows and the batch size. Checkpoints hold these, so a position is never applied to other
data.
"""

from collections.abc import Mapping
from typing import Any

from absl import logging

from monolith_tf.data import file_marks
from monolith_tf.training import run as run_lib


def resume(
    progress: run_lib.Progress,
    saved: Mapping[str, Any] | None,
    here: Mapping[str, Any],
    batch_size: int,
) -> None:
    """Converts the position of a run to the current data, and logs what changed.

    Args:
      progress: The run's progress; `batch` and `batch_size` are changed.
      saved: `Source.identity` when the checkpoint was written; None for a checkpoint of
        0.1.0, which does not have it.
      here: `Source.identity` now; like `saved`, empty for a user's `input_fn`.
      batch_size: Rows per batch now.
    """
    size = progress.batch_size or batch_size
    progress.batch_size = batch_size
    if saved is None:
        if not here:
            return  # A function decides its batches; the config's size has no effect.
        logging.info(
            "The checkpoint does not say to which files its position refers; "
            "continuing with the current ones at its batch, number %d.",
            progress.batch,
        )
        _convert(progress, size, here["rows"], here)
    elif not here and not saved:
        return
    elif here and saved and file_marks.are_same(saved["files"], here["files"]):
        _convert(progress, size, saved["rows"], here)
        _warn_of_order(progress, saved, here)
    elif here and saved and _goes_on_after(progress, size, saved, here):
        row = min(progress.batch * size, saved["rows"])
        progress.batch = row // batch_size
        logging.info(
            "%d files follow the train files of the checkpoint; continuing at the "
            "nearest batch before row %d of all files.",
            len(here["files"]) - len(saved["files"]),
            row,
        )
    else:
        _begin(progress, size, saved)


def _begin(progress: run_lib.Progress, size: int, saved: Mapping[str, Any]) -> None:
    """Starts other data at its beginning."""
    unread = f"{progress.batch} batches of `data.input_fn` were read before"
    if saved:
        _, row = _place(progress.batch, size, saved["rows"])
        left = saved["rows"] - row if row else 0
        unread = f"{left} rows of the old ones were not read in their last epoch"
    progress.batch = 0
    logging.warning(
        "The train files are not those of the checkpoint: starting with row 0; %s. "
        "`trainer.epochs` counts epochs over the new ones.",
        unread,
    )


def _goes_on_after(
    progress: run_lib.Progress,
    size: int,
    saved: Mapping[str, Any],
    here: Mapping[str, Any],
) -> bool:
    """Returns whether a position stays valid after files were appended.

    It does only in file order, and in the first epoch: later epochs have read the old
    files more often than the new ones.
    """
    if saved["order"] or here["order"] or here["rows"] < saved["rows"]:
        return False
    is_first = (progress.batch - 1) * size < saved["rows"]
    return is_first and file_marks.are_appended(saved["files"], here["files"])


def _convert(
    progress: run_lib.Progress, size: int, rows: int, here: Mapping[str, Any]
) -> None:
    """Converts a position to the current batches: the same epoch and the same row."""
    if (size, rows) == (progress.batch_size, here["rows"]):
        return
    epoch, row = _place(progress.batch, size, rows)
    per_epoch = -(-here["rows"] // progress.batch_size)
    progress.batch = epoch * per_epoch + min(row // progress.batch_size, per_epoch)
    if rows != here["rows"]:
        logging.warning(
            "The train files now have %d rows to train on, and had %d: the seed, or a "
            "setting that chooses rows, changed.",
            here["rows"],
            rows,
        )
    if size != progress.batch_size:
        logging.warning(
            "The batch size changed from %d to %d; continuing at the nearest batch "
            "before row %d of epoch %d.",
            size,
            progress.batch_size,
            row,
            epoch,
        )


def _warn_of_order(
    progress: run_lib.Progress, saved: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
    """Warns that an epoch continues in another order than it began."""
    epoch, row = _place(progress.batch, progress.batch_size, here["rows"])
    if row and saved["order"] != here["order"]:
        logging.warning(
            "The order of rows changed with the seed, `data.shuffle_buffer` or "
            "`data.batch_size`: some rows of epoch %d are trained on twice, and as "
            "many not at all. Later epochs are complete.",
            epoch,
        )


def _place(batch: int, size: int, rows: int) -> tuple[int, int]:
    """Returns the epoch and the row in it at which a batch begins."""
    epoch, batch = divmod(batch, -(-rows // size))
    return epoch, batch * size
