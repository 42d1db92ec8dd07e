"""Step and time of a row's last update."""

from typing import Any
from typing import NamedTuple

import tensorflow as tf

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.types import Tensor

STAMPS = ("step", "secs")
"""The parts of a `Clock` that a row may keep."""


class Clock(NamedTuple):
    """The present step and time, int64 scalars.

    A part is `()` if no table needs it.

    Attributes:
      step: The step.
      secs: The time.
      batch: The batch's number, if it may come again, else `()`. What it does is then
        done once.
    """

    step: Tensor
    secs: Tensor
    batch: Tensor = ()


def clock_for(group: Group, step: Tensor | None, secs: Any, batch: Any = ()) -> Clock:
    """Returns the clock of a training lookup.

    Raises:
      ValueError: If `step` is None, but a table needs it.
    """
    if step is not None:
        return Clock(tf.cast(tf.convert_to_tensor(step), tf.int64), secs, batch)
    if group.needs_step:
        names = [table.name for table in group.tables]
        raise ValueError(
            "`step` must be given in training where a table expires by steps, evicts "
            "its oldest rows or admits by chance, or updates are tracked. "
            f"Received: step=None, tables={names}."
        )
    return Clock((), secs, batch)
