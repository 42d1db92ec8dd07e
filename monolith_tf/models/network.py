"""Encoder, embedding store and model: from raw columns to a model's spec."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Generic
from typing import TypeVar

import tensorflow as tf

from monolith_tf.embedding.lookup.row_store import RowStore
from monolith_tf.features import encode
from monolith_tf.features import labels as labels_lib
from monolith_tf.features.spec import LabelSpec
from monolith_tf.models import base
from monolith_tf.types import Tensor

StoreT = TypeVar("StoreT", bound=RowStore)


class Network(tf.Module, Generic[StoreT]):
    """The forward path that training, evaluation, prediction and export share.

    Attributes:
      encoder: Turns columns into feature ids and dense features.
      store: The store of the rows.
      model: The model.
      labels: The labels; empty if the columns hold none.
      weight: Column of the examples' weights, or None.
    """

    def __init__(
        self,
        encoder: encode.FeatureEncoder,
        store: StoreT,
        model: base.Model,
        *,
        labels: Sequence[LabelSpec] = (),
        weight: str | None = None,
    ) -> None:
        """Creates the network.

        Args:
          encoder: Turns columns into feature ids and dense features.
          store: The store of the rows.
          model: The model.
          labels: The labels; empty if the columns hold none.
          weight: Column of the examples' weights, or None.
        """
        super().__init__(name="network")
        self.encoder = encoder
        self.store = store
        self.model = model
        self.labels = tuple(labels)
        self.weight = weight

    @tf.autograph.experimental.do_not_convert
    def targets(
        self, columns: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Returns labels by name, and weights or None, each `[batch]` float32."""
        labels = labels_lib.encode_labels(self.labels, columns)
        if self.weight is None:
            return labels, None
        return labels, labels_lib.encode_weights(self.weight, columns)

    def lookup(
        self, columns: Mapping[str, Tensor], mode: base.Mode, **when: object
    ) -> tuple[encode.FeatureBatch, Any]:
        """Encodes columns and fetches their rows.

        Args:
          columns: Raw columns by name, `[batch]` or ragged.
          mode: Only `TRAIN` inserts unknown ids.
          **when: `step` and `now_secs` for the rows' bookkeeping.

        Returns:
          The encoded batch, and what the store pulled for it.
        """
        training = mode is base.Mode.TRAIN
        batch = self.encoder.encode(columns, training=training)
        return batch, self.store.lookup(batch.ids, training=training, **when)

    def run(
        self,
        columns: Mapping[str, Tensor],
        batch: encode.FeatureBatch,
        pulled: Any,
        mode: base.Mode,
    ) -> base.EstimatorSpec:
        """Pools the pulled rows and calls the model."""
        inputs = self.inputs(batch, pulled)
        if mode is not base.Mode.PREDICT:
            labels, weights = self.targets(columns)
            inputs = dataclasses.replace(inputs, labels=labels, weights=weights)
        return self.model.run(inputs, mode)

    def inputs(self, batch: encode.FeatureBatch, pulled: Any) -> base.Inputs:
        """Pools the pulled rows."""
        slices = self.store.combine(pulled)
        return base.Inputs(
            embeddings={name: _side_by_side(value) for name, value in slices.items()},
            slices=slices,
            masks=self.store.masks(pulled),
            dense=batch.dense,
            keys=batch.ids,
        )

    def __call__(
        self, columns: Mapping[str, Tensor], mode: base.Mode
    ) -> base.EstimatorSpec:
        """Runs the whole forward path: `lookup`, then `run`."""
        batch, pulled = self.lookup(columns, mode)
        return self.run(columns, batch, pulled, mode)


def _side_by_side(slices: Mapping[str, Tensor]) -> Tensor:
    values = list(slices.values())
    return values[0] if len(values) == 1 else tf.concat(values, axis=-1)
