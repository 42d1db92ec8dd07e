"""Reads the event files of `tf.summary`."""

import os

import numpy as np
import tensorflow as tf


def read(folder: str | os.PathLike[str]) -> dict[tuple[str, int], np.ndarray]:
    """Returns (tag, step) -> value from all event files of a folder."""
    found = {}
    for path in sorted(tf.io.gfile.glob(os.path.join(folder, "events*"))):
        for record in tf.data.TFRecordDataset(path):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
    return found
