"""The store of this project, and its measurements other than steps."""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from embedding_sides import ours
from embedding_sides import tensorflow_steps
from sides import worker

from monolith_tf import ids as ids_lib

_CHUNK = 500_000  # Ids that are inserted together.


class Side(ours.Side):
    """As `ours`, with further measurements."""

    def facts(self) -> dict[str, float]:
        """Returns the mean number of distinct ids of a batch, and the rows in use."""
        batches = self._keys(self._ids).reshape(len(self._ids), -1)
        return {
            "distinct": float(np.mean([len(np.unique(keys)) for keys in batches])),
            "rows": self._rows(),
        }

    def fill(self, limit_gib: float) -> dict[str, float]:
        """Creates a row for every id.

        Args:
          limit_gib: Memory limit at which this process exits.
        """
        watch = threading.Thread(target=_watch, args=(limit_gib,), daemon=True)
        watch.start()
        case, before = self._case, worker.status_kib("VmRSS")
        slots = tf.range(1, case.features + 1, dtype=tf.int64)[:, tf.newaxis]
        slots = tf.bitwise.left_shift(slots, tf.constant(ids_lib.HASH_BITS, tf.int64))

        @tf.function(autograph=False)
        def insert(start: tf.Tensor, end: tf.Tensor) -> None:
            keys = ids_lib.from_integers(tf.range(start, end)) + slots  # [features, n]
            self._store.lookup(self._features(keys), training=True, step=tf.constant(0))

        chunk = max(1, _CHUNK // case.features)
        begin = time.perf_counter()
        for start in range(0, case.ids, chunk):
            end = min(start + chunk, case.ids)
            insert(tf.constant(start, tf.int64), tf.constant(end, tf.int64))
        seconds = time.perf_counter() - begin
        rows = self._rows()
        payload = 2 * 4 * case.dim  # Adagrad's state is as large as the weights.
        taken = 1024 * (worker.status_kib("VmRSS") - before) / rows
        return {"inserted": rows / seconds, "extra_bytes": taken - payload}

    def memory(self) -> dict[str, float]:
        """Returns this process' current and peak memory in GiB."""
        return {
            "now": worker.status_kib("VmRSS") / 2**20,
            "peak": worker.status_kib("VmHWM") / 2**20,
        }

    def reading(self, rounds: int) -> dict[str, float]:
        """Returns ids and rows per second of operations that read the store."""
        rates = {}
        for name, store in (("lookup", self._store), ("frozen", self._store.freeze())):

            def look_up(keys: tf.Tensor, _: tf.Tensor, store=store) -> tf.Tensor:
                found = store.lookup(self._features(keys), training=False)
                return tf.add_n(
                    [x[0, 0] for x in tf.nest.flatten(store.combine(found))]
                )

            steps = tensorflow_steps.Steps(self._keys(self._ids), look_up)
            rates[name] = self._ids.size / _median(
                lambda steps=steps: steps.run(len(self._ids)), rounds
            )

        def save() -> None:
            with tempfile.TemporaryDirectory() as folder:
                self._store.save(f"{folder}/rows", step=0)

        rates["freeze"] = self._rows() / _median(self._store.freeze, rounds)
        rates["save"] = self._rows() / _median(save, rounds)
        return rates

    def _rows(self) -> int:
        return int(tf.reduce_sum(self._store.counters()["rows"]))


def _median(call: Callable[[], object], rounds: int) -> float:
    call()
    return statistics.median(worker.seconds(call)[0] for _ in range(rounds))


def _watch(limit_gib: float) -> None:
    """Exits this process when it takes too much memory."""
    while worker.status_kib("VmRSS") < limit_gib * 2**20:
        time.sleep(0.2)
    os._exit(1)
