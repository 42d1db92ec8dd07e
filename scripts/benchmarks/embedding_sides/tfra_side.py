"""TensorFlow Recommenders Addons: a hash table of embeddings in C++, and Adagrad."""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders_addons as tfra
import tf_keras
from embedding_sides import case as case_lib
from embedding_sides import tensorflow_steps


class Side(case_lib.Trainer):
    """One layer for all features, which is faster than one for each."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        tensorflow_steps.use_cores(self._case)

    def versions(self) -> dict:
        version = f"{tfra.__version__} on tensorflow {tf.__version__}"
        return {"recommenders_addons": version}

    def make(self, take: str) -> None:
        self._ids = case_lib.row_numbers(self._case.draw(), self._case)
        used = np.unique(self._ids)
        self._layer = tfra.dynamic_embedding.keras.layers.BasicEmbedding(
            self._case.dim, init_capacity=2 * len(used)
        )
        self._layer.params.upsert(tf.constant(used), tf.constant(np.load(take)[used]))
        self._optimizer = tfra.dynamic_embedding.DynamicEmbeddingOptimizer(
            tf_keras.optimizers.legacy.Adagrad(
                case_lib.LEARNING_RATE, case_lib.ACCUMULATOR, epsilon=0.0
            )
        )
        self._steps = tensorflow_steps.Steps(self._ids, self._step)

    def _step(self, ids: tf.Tensor, number: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            embeddings = self._layer(ids)  # [features, batch, dim]
        variables = self._layer.trainable_variables
        gradients = tape.gradient(embeddings, variables, output_gradients=embeddings)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def run(self, steps: int) -> None:
        self._steps.run(steps)

    def weights(self, give: str) -> None:
        found = self._layer.params.lookup(tf.constant(self._ids[0].ravel()))
        np.save(give, found)
