"""Scores a split on the workers of a cluster, every example once."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.data import feed as feed_lib
from monolith_tf.data.spec import Split
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.training import calls
from monolith_tf.training import evaluation
from monolith_tf.types import Nest
from monolith_tf.types import Tensor

_CALLS_PER_WORKER = 2


class ClusterEvaluator:
    """Runs the forward path on workers, and accumulates metrics in the chief."""

    def __init__(
        self,
        evaluator: evaluation.Evaluator,
        cluster: cluster_lib.Cluster,
        feed: feed_lib.Feed,
        batches_per_call: int,
    ) -> None:
        """Makes it.

        Args:
          evaluator: The forward path and the metrics.
          cluster: The cluster.
          feed: How workers read their batches.
          batches_per_call: Most batches per call of a worker.
        """
        self._evaluator = evaluator
        self._cluster = cluster
        self._feed = feed
        self._batches_per_call = batches_per_call
        # Split -> function, to keep its trace between evaluations.
        self._functions: dict[str, Tensor] = {}

    def evaluate(self, split: Split, num_batches: int) -> dict[str, float]:
        """Returns `<head>/<metric>` -> value, and the mean `loss`.

        Args:
          split: Which split.
          num_batches: The number of its batches.
        """
        return self._evaluator.score(self._batches(split, num_batches))

    def _batches(self, split: Split, num_batches: int) -> Iterator[dict[str, Tensor]]:
        function = self._functions.setdefault(split, tf.function(self._work_on(split)))
        starts = list(range(0, num_batches, self._batches_per_call))
        pending = calls.Calls(self._cluster.coordinator, self._cluster.check)
        begun = 0
        held: dict[int, Nest] = {}  # Results that came before their turn.
        for turn in range(len(starts)):
            while turn not in held:
                limit = _CALLS_PER_WORKER * self._cluster.spec.workers
                while pending.under_way < limit and begun < len(starts):
                    end = min(starts[begun] + self._batches_per_call, num_batches)
                    pending.begin(function, (starts[begun], end), begun)
                    begun += 1
                done = pending.next_done()
                *held[done.tag], news = done.result
                self._feed.hear(split, news)
            yield from batches_of(*held.pop(turn))

    def _work_on(self, split: Split) -> Any:
        def work(begin: Tensor, end: Tensor) -> tuple[Tensor, Nest, Tensor]:
            epoch = tf.constant(0, tf.int64)
            iterator = iter(self._feed.dataset(split, epoch, begin, end))
            found_specs = specs(self._evaluator, iterator.element_spec)
            count = tf.cast(end - begin, tf.int32)
            sizes = tf.TensorArray(tf.int64, count)
            arrays = [
                tf.TensorArray(s.dtype, count, element_shape=s.shape, infer_shape=False)
                for s in tf.nest.flatten(found_specs)
            ]
            for place in tf.range(count):
                found = self._evaluator.forward(next(iterator))
                values = tf.nest.flatten(found)
                rows = next(iter(found["predictions"].values()))
                sizes = sizes.write(place, tf.size(rows, tf.int64))
                arrays = [
                    a.write(place, v) for a, v in zip(arrays, values, strict=True)
                ]
            joined = [
                a.concat() if s.shape.rank else a.stack()
                for a, s in zip(arrays, tf.nest.flatten(found_specs), strict=True)
            ]
            # The worker's counts are complete only after all batches were read.
            with tf.control_dependencies(joined):
                news = self._feed.news(split)
            return sizes.stack(), tf.nest.pack_sequence_as(found_specs, joined), news

        return work


def specs(evaluator: evaluation.Evaluator, element_spec: Nest) -> Nest:
    """Returns the specs of the forward path's results, without running it."""
    traced = tf.function(evaluator.forward).get_concrete_function(element_spec)
    return tf.nest.map_structure(
        lambda t: tf.TensorSpec([None] * len(t.shape), t.dtype),
        traced.structured_outputs,
    )


def batches_of(
    sizes: np.ndarray, joined: dict[str, Tensor]
) -> Iterator[dict[str, Tensor]]:
    """Yields the batches that a call has concatenated."""
    ends = np.cumsum(sizes)
    for place, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        own: dict[str, Tensor] = {"loss": place}  # One per batch; others are per row.
        yield {
            name: {
                key: array[own.get(name, slice(end - size, end))]
                for key, array in values.items()
            }
            for name, values in joined.items()
        }
