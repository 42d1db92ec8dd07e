"""A test case that saves checkpoints of a small model, with a store of one file."""

import pathlib

import tensorflow as tf
import tf_keras

from monolith_tf import testing
from monolith_tf.training import checkpoint_dir


class Store:
    """Writes one file, or fails while writing."""

    def __init__(self, error=None):
        self._error = error

    def save(self, directory, *, step):
        directory = pathlib.Path(directory)
        directory.mkdir()
        (directory / "rows").write_bytes(b"12345")
        if self._error is not None:
            raise self._error
        return {"tables": {}}


def state(units=2):
    made = tf.Module()
    made.step = tf.Variable(7, dtype=tf.int64)
    made.model = tf_keras.Sequential([tf_keras.layers.Dense(units)])
    made.model.build([None, 3])
    return made


class SavingCase(testing.TestCase):
    """Has `checkpoints` in the folder `path`, and keeps two."""

    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.get_temp_dir()) / self.id()
        self.path.mkdir(parents=True)
        self.checkpoints = checkpoint_dir.CheckpointDir(self.path, keep=2)

    def save(self, step, root=None, store=None, **fields):
        return self.checkpoints.save(
            root or state(), store or Store(), step=step, state=fields
        )
