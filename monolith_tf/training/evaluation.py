"""Scores a model on a dataset, counting every example once."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from monolith_tf import metrics as metrics_lib
from monolith_tf.models import base
from monolith_tf.models import network as network_lib
from monolith_tf.types import Tensor


class Evaluator:
    """Runs the forward path over a dataset and accumulates metrics per head."""

    def __init__(
        self,
        network: network_lib.Network,
        metric_names: Sequence[str],
        *,
        group_by: str | None = None,
    ) -> None:
        """Makes an evaluator.

        Args:
          network: The forward path.
          metric_names: Names of `monolith_tf.metrics`.
          group_by: Feature whose ids group the rows, for metrics such as `gauc`.
        """
        self._network = network
        self._names = tuple(metric_names)
        self._group_by = group_by
        self._function = tf.function(self.forward, reduce_retracing=True)

    def forward(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the values of one batch that `score` needs."""
        batch, pulled = self._network.lookup(columns, base.Mode.EVALUATE)
        spec = self._network.run(columns, batch, pulled, base.Mode.EVALUATE)
        labels, weights = self._network.targets(columns)
        found: dict[str, Tensor] = {
            "predictions": dict(spec.predictions),
            "labels": {
                head: labels[spec.head_labels.get(head, head)]
                for head in spec.predictions
            },
            "weights": {} if weights is None else {"": weights},
            "keys": {},
            "loss": {},
        }
        if self._group_by is not None:
            found["keys"][""] = batch.ids[self._group_by]
        if spec.loss is not None:
            found["loss"][""] = self._network.model.total_loss(spec)
        return found

    def evaluate(self, dataset: tf.data.Dataset) -> dict[str, float]:
        """Returns `<head>/<metric>` -> value, and the mean `loss`.

        Raises:
          ValueError: If the dataset is empty.
        """
        # One trace for batches of all sizes, instead of another for the last one.
        self._function.get_concrete_function(dataset.element_spec)
        return self.score(
            tf.nest.map_structure(lambda t: t.numpy(), self._function(columns))
            for columns in dataset
        )

    def score(self, batches: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
        """Returns the same for results of `forward`, as NumPy arrays."""
        scores = self.scores()
        for found in batches:
            scores.add(found)
        return scores.result()

    def scores(self) -> "Scores":
        """Returns scores of no batch yet."""
        return Scores(self._names)


class Scores:
    """Metrics of batches, added one by one.

    Attributes:
      rows: Rows of the batches so far.
    """

    def __init__(self, metric_names: Sequence[str]) -> None:
        """Makes it; see `Evaluator`."""
        self._names = tuple(metric_names)
        self._heads: dict[str, dict[str, Tensor]] = {}
        self._loss_sum = 0.0
        self.rows = 0

    def add(self, found: Mapping[str, Tensor]) -> None:
        """Adds a result of `Evaluator.forward`, as NumPy arrays."""
        weights = found["weights"].get("")
        keys = found["keys"].get("")
        size = 0
        for head, predictions in found["predictions"].items():
            size = len(predictions)
            accumulators = self._heads.setdefault(
                head, {name: metrics_lib.create(name) for name in self._names}
            )
            for metric in accumulators.values():
                metric.update(
                    predictions, found["labels"][head], weights=weights, keys=keys
                )
        self.rows += size
        self._loss_sum += size * float(found["loss"].get("", np.nan))

    def result(self) -> dict[str, float]:
        """Returns `<head>/<metric>` -> value, and the mean `loss`.

        Raises:
          ValueError: If there are no rows.
        """
        if not self.rows:
            raise ValueError("There is nothing to evaluate: the dataset has no rows.")
        result = {
            f"{head}/{name}": float(metric.result())
            for head, accumulators in self._heads.items()
            for name, metric in accumulators.items()
        }
        return result | {"loss": self._loss_sum / self.rows}


def predict(
    network: network_lib.Network, dataset: tf.data.Dataset
) -> Iterator[dict[str, np.ndarray]]:
    """Yields predictions and extra outputs by name, batch by batch."""

    @tf.function(input_signature=[dataset.element_spec])
    def forward(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        spec = network(columns, base.Mode.PREDICT)
        return {**spec.predictions, **spec.extra_outputs}

    for columns in dataset:
        yield {name: value.numpy() for name, value in forward(columns).items()}
