"""Finds rows of the eval split that the job trained on before they were held out.

The rows that `data.validation_fraction` holds out depend on the seed, the position of
the file among the train files, and the row's number in the file. If the seed or the
position changes, or the fraction grows, rows that were trained on enter the eval split.
So each checkpoint saves what was held out of every file that the job trained on.
"""

import collections
import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import yaml
from absl import logging

from monolith_tf.config import schema
from monolith_tf.data import file_marks
from monolith_tf.data import formats
from monolith_tf.data import rows as rows_lib
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_MOST_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """What was held out of a file while its other rows were trained on.

    Attributes:
      file: Path of the file.
      digest: Identifies its content; None if the name is not of a file.
      fraction: The share of rows; 0 holds out none.
      seed: The job's seed; 0 where nothing is held out.
      number: Place of the file among the train files; 0 where nothing is held out.
    """

    file: str
    digest: str | None
    fraction: float
    seed: int = 0
    number: int = 0

    def holds_out_all_of(self, other: "HeldOut") -> bool:
        """Whether it holds out every row that `other` holds out."""
        return (self.seed, self.number) == (other.seed, other.number) and (
            other.fraction <= self.fraction
        )


def of(files: file_marks.Marks, config: schema.ExperimentConfig) -> list[JsonDict]:
    """Returns what is held out of the train files, as in JSON.

    Args:
      files: `Source.marks` of the train split.
      config: The config.
    """
    found = _held_out(files, config.data.validation_fraction, config.seed)
    return [dataclasses.asdict(one) for one in found]


def of_checkpoint(
    checkpoint: checkpoint_lib.Checkpoint, files: file_marks.Marks
) -> list[JsonDict]:
    """Returns what was held out of the files that a checkpoint was trained on.

    If an older checkpoint does not save this, assumes the files that it names, with the
    seed and the fraction of its config. A checkpoint of 0.1.0 names no files; assumes
    the current ones.

    Args:
      checkpoint: The checkpoint.
      files: `Source.marks` of the current train files.
    """
    state = checkpoint.manifest["state"]
    if "trained" in state:
        return list(state["trained"])
    config = yaml.safe_load(checkpoint.config_path.read_text("utf-8")) or {}
    fraction = config.get("data", {}).get("validation_fraction", 0.0)
    files = state["data"].get("files", ()) if "data" in state else files
    found = _held_out(files, fraction, config.get("seed", 0))
    return [dataclasses.asdict(one) for one in found]


def joined(before: Iterable[JsonMapping], now: Iterable[JsonMapping]) -> list[JsonDict]:
    """Returns the distinct entries of both."""
    return [
        dataclasses.asdict(one)
        for one in dict.fromkeys(HeldOut(**entry) for entry in (*before, *now))
    ]


def count(
    entries: Sequence[JsonMapping],
    files: file_marks.Marks,
    config: schema.ExperimentConfig,
) -> int:
    """Returns an upper bound of the eval rows that were trained on; warns of them.

    Counts rows in the files, also bad ones; reads only files that may have such rows.

    Args:
      entries: What was held out of the files that were trained on.
      files: `Source.marks` of the current train files.
      config: The config.
    """
    spec = config.data
    if not spec.validation_fraction or not files:
        return 0
    # Match files by name or by content: a file may be moved, or have rows added.
    trained: dict[str | None, list[HeldOut]] = collections.defaultdict(list)
    for one in (HeldOut(**entry) for entry in entries):
        trained[one.file].append(one)
        if one.digest is not None:
            trained[one.digest].append(one)
    moved: dict[int, list[HeldOut]] = {}
    reasons: dict[str, None] = {}
    for here in _held_out(files, spec.validation_fraction, config.seed):
        before = list(dict.fromkeys([*trained[here.file], *trained[here.digest]]))
        if not all(one.holds_out_all_of(here) for one in before):
            moved[here.number] = before
            reasons |= dict.fromkeys(_reasons(here, before))
    if not moved:
        return 0
    split = rows_lib.SplitRows(
        spec, formats.make_reader(spec, "eval"), "eval", {}, config.seed
    )
    num_trained = num_rows = 0
    for number, before in moved.items():
        keys = [(one.fraction, one.seed, one.number) for one in before]
        trained_here, rows_here = split.count_not_held_out(number, keys)
        num_trained += trained_here
        num_rows += rows_here
    if num_trained:
        shown = list(reasons)[:_MOST_SHOWN]
        if len(reasons) > _MOST_SHOWN:
            shown.append(f"and {len(reasons) - _MOST_SHOWN} more")
        logging.warning(
            "The eval split has rows that the model was trained on, up to %d of the %d "
            "that `data.validation_fraction` holds out of %d files: %s. Its metrics "
            "are too good by that. Set it back, name files for `data.eval`, or train "
            "in another `model_dir`.",
            num_trained,
            num_rows,
            len(moved),
            "; ".join(shown),
        )
    return num_trained


def _held_out(files: file_marks.Marks, fraction: float, seed: int) -> list[HeldOut]:
    return [
        HeldOut(mark["path"], mark.get("digest"), fraction, seed, number)
        if fraction
        else HeldOut(mark["path"], mark.get("digest"), 0.0)
        for number, mark in enumerate(files)
    ]


def _reasons(here: HeldOut, before: Iterable[HeldOut]) -> Iterator[str]:
    """Yields why rows of a file entered the eval split."""
    for one in before:
        if not one.fraction:
            yield "no rows were held out before"
        elif one.seed != here.seed:
            yield f"`seed` was {one.seed} and is now {here.seed}"
        elif one.number != here.number:
            yield (
                f"{here.file} was number {one.number} of the train files (counting "
                f"from 0) and is now number {here.number}"
            )
        elif one.fraction < here.fraction:
            yield f"the fraction was {one.fraction:g} and is now {here.fraction:g}"
