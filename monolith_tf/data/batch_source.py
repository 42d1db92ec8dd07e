"""The interface of one split of the data, which files and user functions share."""

import dataclasses
from typing import TYPE_CHECKING
from typing import Protocol

from monolith_tf.data import file_marks
from monolith_tf.data.rows import Filled
from monolith_tf.data.windows import Cut
from monolith_tf.types import JsonDict

if TYPE_CHECKING:
    import tensorflow as tf

UNKNOWN_FILES = -1
"""What `files_digest` returns if the files are not known."""


@dataclasses.dataclass(frozen=True)
class RowRange:
    """The rows of one file in a batch.

    Attributes:
      file: Path of the file.
      first_row: The lowest row number, from 0.
      last_row: The highest; a shuffled batch has only some of the rows between.
      num_rows: How many rows of the file are in the batch.
    """

    file: str
    first_row: int
    last_row: int
    num_rows: int


@dataclasses.dataclass(frozen=True)
class RowPlace:
    """Where one row of a batch comes from.

    Attributes:
      file: Path of its file; empty if it is not known.
      text: The place, for a message.
    """

    file: str
    text: str


class BatchSource(Protocol):
    """Batches of one split of the data, from any position.

    A position is (epoch, batch within the epoch); see `Source`.

    Attributes:
      failure: The error that ended a dataset's iteration, or None.
    """

    failure: Exception | None

    @property
    def marks(self) -> file_marks.Marks:
        """What the files were when the source was opened; empty if not known."""

    @property
    def filled(self) -> Filled:
        """Which rows read so far got a default; see `SplitRows.filled`."""

    def counts(self) -> dict[str, int]:
        """Returns name -> count of problems found in the data so far."""

    def identity(self, batch_size: int | None = None) -> JsonDict:
        """Returns the data to which positions refer; empty if not known."""

    def files_digest(self) -> int:
        """Returns a digest, at least 0, of the files, or `UNKNOWN_FILES`."""

    def batches_per_epoch(self) -> int | None:
        """Returns the batches of one epoch, or None if their number is not known."""

    def dataset(
        self,
        epoch_start: int = 0,
        batch_start: int = 0,
        num_epochs: int | None = 1,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        string_codes: bool = False,
        cut: Cut | None = None,
    ) -> "tf.data.Dataset":
        """Returns the batches from a position on; see `Source.dataset`."""

    def locate(
        self, epoch: int, batch: int, *, cut: Cut | None = None
    ) -> list[RowRange]:
        """Returns the files and row ranges of a batch; empty if not known."""

    def row_place(
        self, epoch: int, batch: int, row: int, *, cut: Cut | None = None
    ) -> RowPlace:
        """Returns where a row comes from; `row` is its place in the batch, from 0."""

    def is_unsigned(self, file: str, column: str) -> bool:
        """Returns whether batches hold a file's unsigned integers as signed ones."""
