"""Messages, and the rows that are made of them."""

import numpy as np

from monolith_tf.data import rounding
from monolith_tf.data.cleaning import clean
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.events import OffsetRange

FIRST = 100  # Offset of the first message.


def events(values, *, times=None, keys=None, headers=None):
    count = len(values)
    return Events(
        OffsetRange(0, FIRST, FIRST + count),
        np.arange(FIRST, FIRST + count),
        np.array(times if times is not None else [-1] * count),
        values,
        keys or [None] * count,
        headers or [()] * count,
    )


def rows(messages, given, columns):
    """Returns the good rows as lists by offset, and offset -> reason of bad ones."""
    good, bad = [], {}
    for block in messages.blocks(given, columns):
        found = clean(block, columns, [], rounding.Look(), "t")
        lists = [found.table.column(name).to_pylist() for name in columns]
        good += zip(found.rows.tolist(), *lists, strict=True)
        bad.update((one.row, one.reason) for one in found.bad)
    return good, bad
