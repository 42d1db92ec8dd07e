"""Finds the position in its data at which a job resumes, even if the data changed.

A position is a number of batches. It identifies a row only together with the files,
their rows, their order and the batch size. Checkpoints save all of these, so a position
is never applied to other data. A resumed epoch continues at its next row, in the order
in which it began, even if the batch size changes.
"""

from typing import NamedTuple

from absl import logging

from monolith_tf.data import file_marks
from monolith_tf.training import run as run_lib
from monolith_tf.types import JsonMapping


class _Place(NamedTuple):
    """The place of the next row.

    Attributes:
      epoch: Its epoch.
      row: Its index in the epoch's order.
      order: The order, as in `Source.identity`.
    """

    epoch: int
    row: int
    order: list[int]


def resume(
    progress: run_lib.Progress,
    saved: JsonMapping | None,
    here: JsonMapping,
    batch_size: int,
    *,
    taken_for: JsonMapping,
) -> None:
    """Converts the position of a run to the current data, and logs what changed.

    Args:
      progress: The run's progress; `batch`, `batch_size` and `begun` are changed.
      saved: `Source.identity` when the checkpoint was written; None for a checkpoint of
        0.1.0, which does not have it.
      here: `Source.identity` now; like `saved`, empty for a user's `input_fn`.
      batch_size: Rows per batch now.
      taken_for: Replaces `saved` if that is None: `here`, at the batch size of the
        checkpoint.
    """
    if not here and not saved:
        # A function decides its batches; the config's size has no effect.
        progress.batch_size = batch_size
        return
    place = None
    if saved is None:
        logging.info(
            "The checkpoint does not say to which files its position refers; "
            "continuing with the current ones at its batch, number %d.",
            progress.batch,
        )
        place = _place(progress, taken_for, batch_size)
        _say(progress, place, here, batch_size)
    elif here and saved and file_marks.are_same(saved["files"], here["files"]):
        place = _place(progress, saved, batch_size)
        place = _of_other_rows(place, saved["rows"], here)
        _say(progress, place, here, batch_size)
    elif here and saved and _are_appended(saved, here):
        place = _place(progress, saved, batch_size)
        place = _in_longer_epoch(place, saved["rows"])
        if place is not None:
            logging.info(
                "%d files follow the train files of the checkpoint; continuing at row "
                "%d of all files.",
                len(here["files"]) - len(saved["files"]),
                place.row,
            )
    if place is None:
        place = _begin(progress, saved or {}, here, batch_size)
    _cut(progress, place, here, batch_size)


def _place(progress: run_lib.Progress, data: JsonMapping, batch_size: int) -> _Place:
    """Returns the place of a position in the data that it refers to."""
    size, rows = progress.batch_size or batch_size, data["rows"]
    epoch, batch = divmod(progress.batch, -(-rows // size))
    cut = progress.cut(epoch)
    order = data["order"] if cut.order is None else list(cut.order)
    return _Place(epoch, min(batch * size + cut.shift, rows), order)


def _cut(
    progress: run_lib.Progress,
    place: _Place,
    here: JsonMapping,
    batch_size: int,
) -> None:
    """Sets the position to a place, to continue with batches of the current size.

    The place need not be a multiple of the batch size. Counts the batches back from the
    end of the epoch, so that it has as many batches as all others; the shift says where
    they start.
    """
    progress.batch_size = batch_size
    progress.begun = {}
    if not here:
        progress.batch = 0
        return
    per_epoch = -(-here["rows"] // batch_size)
    batch = per_epoch - -(-(here["rows"] - place.row) // batch_size)
    progress.batch = place.epoch * per_epoch + batch
    shift = place.row - batch * batch_size
    order = None if place.order == here["order"] else place.order
    if 0 < place.row < here["rows"] and (shift or order is not None):
        progress.begun = {"epoch": place.epoch, "shift": shift, "order": order}


def _begin(
    progress: run_lib.Progress,
    saved: JsonMapping,
    here: JsonMapping,
    batch_size: int,
) -> _Place:
    """Returns the start of the new data, and warns."""
    unread = f"{progress.batch} batches of `data.input_fn` were read before"
    if saved:
        row = _place(progress, saved, batch_size).row
        left = saved["rows"] - row if row else 0
        unread = f"{left} rows of the old ones were not read in their last epoch"
    logging.warning(
        "The train files are not those of the checkpoint: starting with row 0; %s. "
        "`trainer.epochs` counts epochs over the new ones.",
        unread,
    )
    return _Place(0, 0, here.get("order", []))


def _are_appended(saved: JsonMapping, here: JsonMapping) -> bool:
    """Whether files were appended that do not change the rows before a position.

    This requires reading in file order: appended rows change a shuffled order.
    """
    if saved["order"] or here["order"] or here["rows"] < saved["rows"]:
        return False
    return file_marks.are_appended(saved["files"], here["files"])


def _in_longer_epoch(place: _Place, rows: int) -> _Place | None:
    """Returns the place in epoch 0 of the longer data; None in later epochs.

    Later epochs have already read the old files more often than the new ones.

    Args:
      place: The place in the old files.
      rows: Number of rows of the old files.
    """
    if (place.epoch, place.row) == (1, 0):
        return place._replace(epoch=0, row=rows)
    return None if place.epoch or place.order else place


def _of_other_rows(place: _Place, rows: int, here: JsonMapping) -> _Place:
    """Returns the place in the same files when other rows of them are selected."""
    if rows == here["rows"]:
        return place
    logging.warning(
        "The train files now have %d rows to train on, and had %d: the seed, or a "
        "setting that chooses rows, changed.",
        here["rows"],
        rows,
    )
    return place._replace(row=min(place.row, here["rows"]))


def _say(
    progress: run_lib.Progress,
    place: _Place,
    here: JsonMapping,
    batch_size: int,
) -> None:
    """Logs changes of the batch size and the order."""
    size = progress.batch_size or batch_size
    if size != batch_size:
        logging.info(
            "The batch size changed from %d to %d; continuing at row %d of epoch %d.",
            size,
            batch_size,
            place.row,
            place.epoch,
        )
    if place.row and place.order != here["order"]:
        logging.info(
            "The order of rows changed with the seed, `data.shuffle_buffer` or "
            "`data.batch_size`: epoch %d ends in the order in which it began, and "
            "later epochs use the new one.",
            place.epoch,
        )
