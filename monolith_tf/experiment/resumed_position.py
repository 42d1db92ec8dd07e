"""Where in its data a job goes on that comes back to it, or to other data.

A position is a number of batches. It means rows only together with the files, their
rows, and the size of a batch; checkpoints hold these, so that a position is never
applied to what it is not of.
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
    """Brings the position of a run to the present data, and says what changed.

    Args:
      progress: The run's; `batch` and `batch_size` are changed.
      saved: What `Source.identity` said when the checkpoint was written; None for a
        checkpoint of 0.1.0, which does not say.
      here: What it says now; empty for a user's `input_fn`, as `saved` then is.
      batch_size: Rows in a batch now.
    """
    size = progress.batch_size or batch_size
    progress.batch_size = batch_size
    if saved is None:
        if not here:
            return  # A function's batches are its own, whatever the config's size.
        logging.info(
            "The checkpoint does not say which files its position in the data is of; "
            "going on with the present ones at its batch, number %d.",
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
            "%d files follow the train files of the checkpoint; going on at the "
            "nearest batch before row %d of all.",
            len(here["files"]) - len(saved["files"]),
            row,
        )
    else:
        _begin(progress, size, saved)


def _begin(progress: run_lib.Progress, size: int, saved: Mapping[str, Any]) -> None:
    """Begins with other data at its beginning."""
    unread = f"{progress.batch} batches of `data.input_fn` were read before"
    if saved:
        _, row = _place(progress.batch, size, saved["rows"])
        left = saved["rows"] - row if row else 0
        unread = f"{left} rows of the former ones had not been read in their last epoch"
    progress.batch = 0
    logging.warning(
        "The train files are not those of the checkpoint: beginning with them at row "
        "0; %s. `trainer.epochs` counts epochs over the new ones.",
        unread,
    )


def _goes_on_after(
    progress: run_lib.Progress,
    size: int,
    saved: Mapping[str, Any],
    here: Mapping[str, Any],
) -> bool:
    """Whether rows up to a position are the same ones with files that were appended.

    So it is in the order of the files alone, and in the first epoch: later ones have
    read the former files more often than the new ones.
    """
    if saved["order"] or here["order"] or here["rows"] < saved["rows"]:
        return False
    is_first = (progress.batch - 1) * size < saved["rows"]
    return is_first and file_marks.are_appended(saved["files"], here["files"])


def _convert(
    progress: run_lib.Progress, size: int, rows: int, here: Mapping[str, Any]
) -> None:
    """Counts a position in the present batches: the same epoch, and the same row."""
    if (size, rows) == (progress.batch_size, here["rows"]):
        return
    epoch, row = _place(progress.batch, size, rows)
    per_epoch = -(-here["rows"] // progress.batch_size)
    progress.batch = epoch * per_epoch + min(row // progress.batch_size, per_epoch)
    if rows != here["rows"]:
        logging.warning(
            "The train files have %d rows to train on, where they had %d: the seed, or "
            "what chooses rows, changed.",
            here["rows"],
            rows,
        )
    if size != progress.batch_size:
        logging.warning(
            "The batch size changed from %d to %d; going on at the nearest batch "
            "before row %d of epoch %d.",
            size,
            progress.batch_size,
            row,
            epoch,
        )


def _warn_of_order(
    progress: run_lib.Progress, saved: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
    """Says that an epoch goes on in another order than it began."""
    epoch, row = _place(progress.batch, progress.batch_size, here["rows"])
    if row and saved["order"] != here["order"]:
        logging.warning(
            "The order of rows changed with the seed, `data.shuffle_buffer` or "
            "`data.batch_size`: some rows of epoch %d are trained on twice, and as "
            "many not at all. Later epochs are whole.",
            epoch,
        )


def _place(batch: int, size: int, rows: int) -> tuple[int, int]:
    """Returns the epoch and the row in it at which a batch begins."""
    epoch, batch = divmod(batch, -(-rows // size))
    return epoch, batch * size
