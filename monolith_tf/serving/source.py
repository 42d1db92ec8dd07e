"""What is published: the values of a job at one step."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from monolith_tf.lineage import Lineage
from monolith_tf.serving.changed_rows import Rows
from monolith_tf.serving.row_sender import RowSender


class PublishSource(Protocol):
    """A job's values at one step: those of a checkpoint, or of a running job.

    Several threads may read it at once, one for each server.
    """

    @property
    def lineage(self) -> Lineage:
        """The job's lineage."""

    @property
    def step(self) -> int:
        """The step that a server reaches with all of it."""

    @property
    def newest(self) -> int:
        """The newest step of the rows yielded so far, at least `step`."""

    @property
    def tables(self) -> Mapping[str, int]:
        """Table -> width of its rows; at least one."""

    @property
    def largest(self) -> Mapping[str, np.ndarray]:
        """Table -> the largest numbers that can be served, `[dim]`, float32."""

    def updated(self, since: int) -> Iterator[Rows]:
        """Yields the rows inserted or updated at a step or later, chunk by chunk.

        Args:
          since: A server's step.
        """

    def send(self, since: int, sender: RowSender) -> None:
        """Sends the rows of `updated`, perhaps from other processes.

        Args:
          since: The server's step.
          sender: Sends to the server.

        Raises:
          Exception: As `RowSender.update`.
        """

    def removed(self, since: int) -> Iterable[Rows] | None:
        """Returns rows of zeros for the ids that lost their row at a step or later.

        None if they are not known; what a server has is then compared with `ids`.
        """

    def dense(self) -> Mapping[str, np.ndarray]:
        """Returns path -> value of the model's dense variables, as in a checkpoint.

        The paths begin with `model/`.
        """

    def owns(self, branches: Iterable[str]) -> bool:
        """Returns whether the job trained branches of these ids in its folder."""

    def ids(self) -> Mapping[str, np.ndarray]:
        """Returns table -> the ids that have a row, `[n]`, int64, sorted."""


def nothing(source: PublishSource) -> Rows:
    """Returns an empty set of rows, for a request that only reads or sets the step."""
    table, dim = next(iter(source.tables.items()))
    return Rows(table, np.zeros([0], np.int64), np.zeros([0, dim], np.float32))
