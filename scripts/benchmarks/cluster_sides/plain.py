"""`tf_keras.layers.Embedding` and Adagrad under the same strategy and feed."""

import contextlib

import tensorflow as tf
import tf_keras
from cluster_sides import case as case_lib

from monolith_tf.data import feed as feed_lib
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.experiment import build


class Plain:
    """Layers, and steps of them, several in a closure.

    Args:
      case: The case.
      job: The job that reads its data.
      cluster: The cluster to train on; None for this process.
      feed: The workers' feed; None for this process.
      layers: "one" for all features, or "many", one for each.
    """

    def __init__(
        self,
        case: case_lib.Case,
        job: build.Job,
        cluster: cluster_lib.Cluster | None,
        feed: feed_lib.Feed | None,
        layers: str,
    ) -> None:
        self._case, self._cluster, self._feed = case, cluster, feed
        self._done = 0
        count = 1 if layers == "one" else case.features
        with cluster.strategy.scope() if cluster else contextlib.nullcontext():
            self._tables = [
                tf_keras.layers.Embedding(case.ids * case.features // count, case.dim)
                for _ in range(count)
            ]
            self._tower = tf_keras.Sequential(
                [tf_keras.layers.Dense(n, activation="relu") for n in case_lib.UNITS]
                + [tf_keras.layers.Dense(1)]
            )
            for table in self._tables:
                table.build([None])
            self._tower.build([None, case.features * case.dim])
            # The legacy optimizer calls a kernel for sparse gradients.
            self._optimizer = tf_keras.optimizers.legacy.Adagrad(
                case_lib.LEARNING_RATE, case_lib.ACCUMULATOR
            )
            self._variables = [
                variable
                for layer in [*self._tables, self._tower]
                for variable in layer.trainable_variables
            ]
            self._optimizer._create_all_weights(self._variables)
        if cluster is None:
            batches = job.source("train").dataset(num_epochs=None, string_codes=True)
            self._iterator = iter(batches)
        self._function = tf.function(self._steps if cluster is None else self._work)

    def run(self, steps: int) -> None:
        """Runs further steps."""
        end = self._done + steps
        while self._done < end:
            epoch, first = divmod(self._done, self._case.batches)
            last = min(first + self._case.loop, first + end - self._done)
            last = min(last, self._case.batches)
            self._done += last - first
            if self._cluster is None:
                self._function(self._iterator, tf.constant(last - first, tf.int64))
            else:
                place = [tf.constant(n, tf.int64) for n in (epoch, first, last)]
                self._cluster.coordinator.schedule(self._function, args=place)
        if self._cluster is not None:
            self._cluster.coordinator.join()

    def _work(self, epoch: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        batches = self._feed.dataset("train", epoch, first, last)
        return self._steps(iter(batches), last - first)

    def _steps(self, iterator: tf.data.Iterator, steps: tf.Tensor) -> tf.Tensor:
        def body(done: tf.Tensor, total: tf.Tensor) -> tuple:
            columns = next(iterator)
            if self._cluster is None:
                loss = self._step(columns)
            else:
                loss = self._cluster.strategy.run(self._step, args=(columns,))
            return done + 1, total + loss

        begin = (tf.constant(0, tf.int64), tf.constant(0.0))
        return tf.while_loop(lambda done, _: done < steps, body, begin)[1]

    def _step(self, columns: dict[str, tf.Tensor]) -> tf.Tensor:
        labels = tf.cast(columns["click"], tf.float32)
        with tf.GradientTape() as tape:
            logits = self._tower(self._embed(columns))[:, 0]  # [batch]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self._variables)
        self._optimizer.apply_gradients(zip(gradients, self._variables, strict=True))
        return loss

    def _embed(self, columns: dict[str, tf.Tensor]) -> tf.Tensor:
        ids = [columns[name] for name in self._case.names]
        if len(self._tables) == 1:
            found = self._tables[0](tf.stack(ids, axis=1))  # [batch, features, dim]
            return tf.reshape(found, [-1, self._case.features * self._case.dim])
        found = [
            table(own - number * self._case.ids)
            for number, (table, own) in enumerate(zip(self._tables, ids, strict=True))
        ]
        return tf.concat(found, axis=-1)
