"""Tests that rows are freed with the model, the store or the job they belong to."""

import ctypes
import gc
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

import monolith_tf as mt
from monolith_tf import testing
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.testing import small_job

_KEYS = np.arange(64)[:, np.newaxis] % 7
_MOST_GROWTH = 32 << 20


def _keras(folder):
    del folder
    layers = [
        mt.embedding.Embedding(4),
        tf_keras.layers.Flatten(),
        tf_keras.layers.Dense(1),
    ]
    model = tf_keras.Sequential(layers)
    model.compile("sgd", "mse")
    model.fit(_KEYS, np.ones([64, 1]), batch_size=32, verbose=0)
    model.predict(_KEYS, verbose=0)
    tf_keras.backend.clear_session()


def _store(folder):
    del folder
    column = ColumnSpec(feature="f", table="t", combiner="first_n", max_length=2)
    store = EmbeddingStore([TableSpec(name="t", slot=1, dim=4)], [column])

    @tf.function
    def step():
        ids = (1 << 48) + tf.range(10, dtype=tf.int64)
        ragged = tf.RaggedTensor.from_row_splits(ids, [0, 5, 10])
        pulled = store.lookup({"f": ragged}, training=True)
        with tf.GradientTape() as tape:
            tape.watch(pulled.rows)
            loss = tf.reduce_sum(store.combine(pulled)["f"]["vec"])
        store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), 0)

    step()


def _estimator(folder):
    config = small_job.write(pathlib.Path(folder) / "job", rows=128)
    overrides = ["trainer.max_steps=2", "trainer.deterministic=false"]
    mt.Estimator(str(config), *overrides).train()


def _variables():
    """How many variables the process holds, by all that Python knows."""
    gc.collect()
    gc.collect()
    return sum(isinstance(o, tf.Variable) for o in gc.get_objects())


def _memory():
    """Bytes in use, without those that are free but kept for later."""
    _variables()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def _threads():
    return len(list(pathlib.Path("/proc/self/task").iterdir()))


class FreedRowsTest(testing.TestCase):
    @parameterized.parameters((_keras, 4), (_store, 4), (_estimator, 1))
    def test_no_variable_and_no_thread_is_left(self, use, times):
        use(self.get_temp_dir())  # What TensorFlow and Keras keep of a first use.
        variables, threads = _variables(), _threads()
        for _ in range(times):
            use(self.get_temp_dir())
            gc.collect()
        self.assertEqual(_variables(), variables)
        if times > 1:  # A thread per use, and not one of TensorFlow's own.
            self.assertLess(_threads() - threads, times)


@pytest.mark.slow
@pytest.mark.timeout(1800)
class ManyModelsTest(testing.TestCase):
    @parameterized.parameters((_keras, 100), (_store, 100), (_estimator, 30))
    def test_memory_is_bounded(self, use, times):
        def repeat(number):
            for _ in range(number):
                use(self.get_temp_dir())
                # TensorFlow keeps as much memory as was ever in use at one time: that
                # must not depend on when Python looks for what is free.
                gc.collect()

        repeat(20)  # What TensorFlow and its threads keep comes bit by bit.
        before = _memory()
        repeat(times)
        grown = _memory() - before
        print(f"{times} times: {before >> 20} MiB, and {grown >> 20} MiB more")
        self.assertLess(grown, _MOST_GROWTH)
