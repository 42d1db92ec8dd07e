"""Workers that update the rows of one store at once, and the updates lost."""

import concurrent.futures

import numpy as np
import tensorflow as tf
from embedding_sides import ours
from embedding_sides import tensorflow_steps
from sides import worker

from monolith_tf import embedding
from monolith_tf.embedding import initializer_spec
from monolith_tf.embedding import optimizer_spec


class Side(ours.Side):
    """A store whose weights count how often their id was trained on.

    Args:
      case: Fields of `Case`, as JSON.
      mode: The store's.
      workers: How many threads train, each on all batches.
    """

    def __init__(self, case: str, mode: str, workers: str) -> None:
        super().__init__(case)
        self._mode, self._workers, self._passes = mode, int(workers), 0

    def make(self) -> None:
        case = self._case
        self._store = embedding.EmbeddingStore(
            [
                embedding.TableSpec(
                    name=f"t{i}",
                    dim=case.dim,
                    slot=i + 1,
                    initializer=initializer_spec.ZerosSpec(),
                    optimizer=optimizer_spec.SgdSpec(learning_rate=1.0),
                )
                for i in range(case.features)
            ],
            [
                embedding.ColumnSpec(feature=f"f{i}", table=f"t{i}")
                for i in range(case.features)
            ],
            capacity=case.features * case.ids + 1,
            mode=self._mode,
        )
        self._keys_of = self._keys(case.draw())
        # Workers are at different batches at any time; only frequent ids collide.
        shift = case.batches // self._workers
        self._steps_of = [
            tensorflow_steps.Steps(np.roll(self._keys_of, i * shift, 0), self._step)
            for i in range(self._workers)
        ]
        for steps in self._steps_of:  # Gives all ids a row, and traces everything.
            steps.run(case.batches)
            self._passes += 1
        self._pool = concurrent.futures.ThreadPoolExecutor(self._workers)

    def _upstream(self, embeddings: list[tf.Tensor]) -> list[tf.Tensor]:
        # The sum of all embeddings, whose gradients count the ids: whole numbers, so
        # the order of updates does not matter.
        return [-tf.ones_like(embedding) for embedding in embeddings]

    def time(self, steps: int) -> tuple[float, float]:
        """Returns the seconds of a step of all workers: wall time and CPU time."""
        if steps % self._case.batches:
            raise ValueError(f"`steps` must be whole passes. Received: steps={steps}.")

        def run_all() -> None:
            for done in [self._pool.submit(one.run, steps) for one in self._steps_of]:
                done.result()

        clock, cpu = worker.seconds(run_all)
        self._passes += self._workers * steps // self._case.batches
        taken = self._workers * steps
        return clock / taken, cpu / taken

    def lost(self) -> float:
        """Returns the share of all updates missing from the weights."""
        keys, counts = np.unique(self._keys_of, return_counts=True)
        # Any feature's name works, as keys contain their table.
        pulled = self._store.lookup({"f0": tf.constant(keys)}, training=False)
        found = self._store.combine(pulled)["f0"]["vec"]
        made = float(tf.reduce_sum(tf.cast(found[:, 0], tf.float64)))
        return 1.0 - made / (self._passes * counts.sum())
