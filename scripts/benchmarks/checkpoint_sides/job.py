"""A store of many rows, on servers or in this process, and its checkpoints."""

import contextlib
import pathlib
import tempfile
import threading
import time

import numpy as np
import tensorflow as tf
from sides import worker

from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.testing import server_processes
from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_dir

_INSERTED = 1 << 18
_BATCH = 4096
_SLOT = 1 << 48


class Side:
    """The chief of a job.

    Args:
      servers: Number of parameter servers, each a process; 0 for none.
      rows: Rows of the table.
      dim: Weights of a row, trained by Adagrad.
      touched: Rows that batches are drawn from.
    """

    def __init__(self, servers: str, rows: str, dim: str, touched: str) -> None:
        self._open = contextlib.ExitStack()
        self._folder = self._open.enter_context(tempfile.TemporaryDirectory())
        placement = None
        if int(servers):
            started = self._open.enter_context(
                server_processes.ServerProcesses(int(servers))
            )
            placement = started.placement
        self._store = EmbeddingStore(
            [TableSpec(name="t", slot=1, dim=int(dim))],
            [ColumnSpec(feature="t", table="t")],
            placement=placement,
            track_updates=True,
        )
        self._root = tf.Module()
        self._root.dense = tf.Variable(tf.zeros([1024, 256]))
        self._step = 0
        self._train = tf.function(
            self._one_step,
            input_signature=[
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([], tf.int64),
            ],
        )
        self._hot = np.random.default_rng(0).permutation(int(rows))[: int(touched)]
        for first in range(0, int(rows), _INSERTED):
            ids = tf.range(first, min(first + _INSERTED, int(rows)), dtype=tf.int64)
            self._train(ids + _SLOT, tf.constant(0, tf.int64))
            self._store.maintain(0)
        folder = pathlib.Path(self._folder) / "checkpoints"
        self._checkpoints = checkpoint_dir.CheckpointDir(folder, keep=1)
        self._checkpoints.start_deltas(None, self._store)
        self._touch_all()
        self._save()  # Traces all that is called later.
        self.live()
        self.delta()

    def full(self) -> dict[str, float]:
        """Writes a whole checkpoint while no step runs."""
        return self._measured(self._save)

    def delta(self) -> dict[str, float]:
        """Writes what changed since the last one, while no step runs."""
        self._save(as_delta=True)  # Waits until files of earlier ones are removed.
        self._touch_all()
        return self._measured(lambda: self._save(as_delta=True))

    def live(self) -> dict[str, float]:
        """Writes a whole checkpoint while steps run, all but its end."""
        stop, times = threading.Event(), []
        found: dict[str, float] = {}

        def train() -> None:
            rng = np.random.default_rng(self._step)
            while not stop.is_set():
                begin = time.perf_counter()
                self._take(rng.choice(self._hot, _BATCH))
                times.append(time.perf_counter() - begin)

        def write() -> None:
            begin = time.perf_counter()
            thread = threading.Thread(target=train)
            copy = self._checkpoints.begin_copy(self._store, self._step)
            thread.start()
            copy.wait()
            stop.set()
            thread.join()
            self._touch_all()  # At least as much as the bar says.
            rested = time.perf_counter()
            saved = self._save(copy=copy)
            found.update(
                rest=time.perf_counter() - rested,
                whole=time.perf_counter() - begin,
                bytes=saved.num_bytes,
                steps=len(times),
                longest_step=max(times),
            )

        peak = worker.peak_mib(write)
        before = [self._timed(lambda: self._take(self._hot[:_BATCH])) for _ in range(9)]
        return {**found, "peak": peak or 0.0, "usual_step": float(np.median(before))}

    def close(self) -> None:
        """Ends the servers."""
        self._open.close()

    def _measured(self, save) -> dict[str, float]:
        found: dict[str, float] = {}

        def write() -> None:
            begin = time.perf_counter()
            saved = save()
            found["whole"] = found["rest"] = time.perf_counter() - begin
            found["bytes"] = saved.num_bytes

        peak = worker.peak_mib(write)
        return {**found, "peak": peak or 0.0}

    def _save(self, **options) -> checkpoint.Checkpoint:
        self._step += 1
        return self._checkpoints.save(
            self._root, self._store, step=self._step, state={}, **options
        )

    def _touch_all(self) -> None:
        for first in range(0, len(self._hot), _BATCH):
            self._take(self._hot[first : first + _BATCH])

    def _take(self, values: np.ndarray) -> None:
        ids = tf.constant(values, tf.int64) + _SLOT
        self._train(ids, tf.constant(self._step, tf.int64))

    def _timed(self, call) -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    def _one_step(self, ids: tf.Tensor, step: tf.Tensor) -> None:
        pulled = self._store.lookup({"t": ids}, training=True, step=step)
        ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
        self._store.apply_gradients(pulled, ones, step)
