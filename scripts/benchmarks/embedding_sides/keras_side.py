"""`tf_keras.layers.Embedding` and its Adagrad: ids below a bound, no hash."""

import functools

import numpy as np
import tensorflow as tf
import tf_keras
from embedding_sides import case as case_lib
from embedding_sides import tensorflow_steps


class Side(case_lib.Trainer):
    """Layers, and their batches.

    Args:
      case: As in `Trainer`.
      layers: "one" for all features, or "many", one for each.
      form: "adagrad", which `compile` uses for this name; "legacy", which calls a
        kernel for sparse gradients; "jit_optimizer", Adagrad that XLA compiles;
        "jit_step", a whole step that XLA compiles; or "dense", with legacy Adagrad on
        gradients of all rows. All run in a `tf.function`.
    """

    def __init__(self, case: str, layers: str, form: str) -> None:
        super().__init__(case)
        kind = tf_keras.optimizers
        self._make_optimizer = {
            "adagrad": kind.Adagrad,
            "legacy": kind.legacy.Adagrad,
            "jit_optimizer": functools.partial(kind.Adagrad, jit_compile=True),
            "jit_step": kind.Adagrad,
            "dense": kind.legacy.Adagrad,
        }[form]
        self._is_dense = form == "dense"
        self._jit_step = form == "jit_step"
        self._num_layers = 1 if layers == "one" else self._case.features
        tensorflow_steps.use_cores(self._case)

    def versions(self) -> dict:
        return {"tf_keras": tf_keras.__version__}

    def make(self, take: str) -> None:
        case = self._case
        self._layers = []
        for weights in np.split(np.load(take), self._num_layers):
            layer = tf_keras.layers.Embedding(*weights.shape)
            layer.build([None])
            layer.embeddings.assign(weights)
            self._layers.append(layer)
        self._optimizer = self._make_optimizer(
            case_lib.LEARNING_RATE, case_lib.ACCUMULATOR, epsilon=0.0
        )
        if hasattr(self._optimizer, "build"):
            self._optimizer.build([layer.embeddings for layer in self._layers])
        ids = case.draw()
        if self._num_layers == 1:
            ids = case_lib.row_numbers(ids, case)[:, np.newaxis]
        self._ids = ids
        step = self._step
        if self._jit_step:
            step = tf.function(step, autograph=False, jit_compile=True)
        self._steps = tensorflow_steps.Steps(ids, step)

    def _step(self, ids: tf.Tensor, number: tf.Tensor) -> None:
        variables = [layer.embeddings for layer in self._layers]
        with tf.GradientTape() as tape:
            embeddings = [layer(ids[i]) for i, layer in enumerate(self._layers)]
        gradients = tape.gradient(embeddings, variables, output_gradients=embeddings)
        if self._is_dense:
            gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def run(self, steps: int) -> None:
        self._steps.run(steps)

    def weights(self, give: str) -> None:
        found = [layer(self._ids[0][i]) for i, layer in enumerate(self._layers)]
        np.save(give, np.reshape(found, [-1, self._case.dim]))
