"""The store of this project."""

import numpy as np
import tensorflow as tf
from embedding_sides import case as case_lib
from embedding_sides import tensorflow_steps

from monolith_tf import embedding
from monolith_tf import ids as ids_lib
from monolith_tf.embedding import initializers
from monolith_tf.embedding import optimizer_spec


class Side(case_lib.Trainer):
    """A store, and its batches."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        tensorflow_steps.use_cores(self._case)

    def versions(self) -> dict:
        return {"tensorflow": tf.__version__}

    def make(self, take: str = "", optimizer: str = "monolith_adagrad") -> None:
        """Creates the store; its defaults are the settings of all sides.

        Args:
          take: Unused: rows start as in `initial`.
          optimizer: Its name.
        """
        case = self._case
        spec = optimizer_spec.row_optimizer(optimizer)
        self._tables = [
            embedding.TableSpec(name=f"t{i}", dim=case.dim, slot=i + 1, optimizer=spec)
            for i in range(case.features)
        ]
        columns = [
            embedding.ColumnSpec(feature=f"f{i}", table=f"t{i}")
            for i in range(case.features)
        ]
        self._store = embedding.EmbeddingStore(
            self._tables, columns, capacity=case.features * case.ids + 1
        )
        self._ids = case.draw()
        self._steps = tensorflow_steps.Steps(self._keys(self._ids), self._step)

    def _keys(self, ids: np.ndarray) -> np.ndarray:
        """Returns feature ids, `[..., features, batch]`."""
        slots = np.arange(1, self._case.features + 1, dtype=np.int64)
        mixed = ids_lib.from_integers(ids + self._case.first_id).numpy()
        return mixed | (slots << ids_lib.HASH_BITS)[:, np.newaxis]

    def _features(self, keys: tf.Tensor) -> dict[str, tf.Tensor]:
        return {f"f{i}": keys[i] for i in range(self._case.features)}

    def _step(self, keys: tf.Tensor, number: tf.Tensor) -> None:
        pulled = self._store.lookup(self._features(keys), training=True, step=number)
        with tf.GradientTape() as tape:
            tape.watch(pulled.rows)
            embeddings = tf.nest.flatten(self._store.combine(pulled))
        upstream = self._upstream(embeddings)
        gradients = tape.gradient(embeddings, pulled.rows, output_gradients=upstream)
        self._store.apply_gradients(pulled, gradients, number)

    def _upstream(self, embeddings: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the loss' gradients: half the sum of squares has the embeddings."""
        return embeddings

    def initial(self, give: str) -> None:
        """Writes the initial weights of all rows, table by table."""
        ids = np.tile(np.arange(self._case.ids), [self._case.features, 1])
        weights = []
        for table, keys in zip(self._tables, self._keys(ids), strict=True):
            part = table.row_slices()[0]
            key = initializers.slice_key(0, table.name, part.name)
            weights.append(
                initializers.initial_values(part.initializer, part.dim, keys, key)
            )
        np.save(give, np.concatenate(weights))

    def run(self, steps: int) -> None:
        self._steps.run(steps)

    def weights(self, give: str) -> None:
        features = self._features(tf.constant(self._keys(self._ids[0])))
        pulled = self._store.lookup(features, training=False)
        found = self._store.combine(pulled)
        np.save(give, np.concatenate([found[name]["vec"] for name in features]))
