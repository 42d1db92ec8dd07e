"""Raw columns to a model's spec: encoder, embedding store and model in one."""

import dataclasses
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.features import encode
from monolith_tf.features import labels as labels_lib
from monolith_tf.features.spec import LabelSpec
from monolith_tf.models import base
from monolith_tf.types import Tensor


class Network(tf.Module):
    """The forward path that training, evaluation, prediction and export share.

    Attributes:
      encoder: Columns to feature ids and dense features.
      store: The embedding store, or a frozen copy.
      model: The model.
    """

    def __init__(
        self,
        encoder: encode.FeatureEncoder,
        store: Any,
        model: base.Model,
        *,
        labels: Sequence[LabelSpec] = (),
        weight: str | None = None,
    ) -> None:
        """Puts the parts together.

        Args:
          encoder: Columns to feature ids and dense features.
          store: The embedding store, or a frozen copy.
          model: The model.
          labels: The labels, where the columns hold any.
          weight: Column of the examples' weights, or None.
        """
        super().__init__(name="network")
        self.encoder = encoder
        self.store = store
        self.model = model
        self._labels = tuple(labels)
        self._weight = weight

    def targets(
        self, columns: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Returns labels by name, and weights or None, each `[batch]` float32."""
        labels = labels_lib.encode_labels(self._labels, columns)
        if self._weight is None:
            return labels, None
        return labels, labels_lib.encode_weights(self._weight, columns)

    def over(self, store: Any) -> "Network":
        """Returns the same network over other tables."""
        return Network(
            self.encoder, store, self.model, labels=self._labels, weight=self._weight
        )

    def lookup(
        self, columns: Mapping[str, Tensor], mode: base.Mode, **when: Any
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
        if isinstance(self.store, FrozenStore):
            return batch, self._found(self.encoder, columns)
        return batch, self.store.lookup(batch.ids, training=training, **when)

    def _found(
        self, encoder: encode.FeatureEncoder, columns: Mapping[str, Tensor]
    ) -> Any:
        """What a frozen store has for columns, with no more hashing than it needs."""
        return self.store.find_values(encoder.values(columns, self.store.integers))

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

    def candidates(
        self, columns: Mapping[str, Tensor], user_features: Collection[str]
    ) -> base.EstimatorSpec:
        """Predicts many items for one user, who is encoded and looked up once.

        Args:
          columns: Raw columns; those that `user_features` read have one row, the others
            one for each item.
          user_features: The features of the user; no column is read by one of them and
            by another feature too.
        """
        order = [feature.name for feature in self.encoder.features]
        sides = []
        for is_user in (True, False):
            names = [name for name in order if (name in user_features) == is_user]
            encoder = self.encoder.only(names)
            batch = encoder.encode(columns)
            sides.append(self.inputs(batch, self._found(encoder, columns)))
        user, items = sides
        inputs = base.Inputs(
            embeddings=_merged(self.store.features, user.embeddings, items.embeddings),
            slices=_merged(self.store.features, user.slices, items.slices),
            masks=_merged(self.store.features, user.masks, items.masks),
            dense=_merged(order, user.dense, items.dense),
            keys=_merged(order, user.keys, items.keys),
        )
        return self.model.run(inputs, base.Mode.PREDICT, user_features=user_features)

    def __call__(
        self, columns: Mapping[str, Tensor], mode: base.Mode
    ) -> base.EstimatorSpec:
        """Runs the whole forward path without touching the store's content."""
        batch, pulled = self.lookup(columns, mode)
        return self.run(columns, batch, pulled, mode)


def _merged(
    order: Iterable[str], user: Mapping[str, Any], items: Mapping[str, Any]
) -> dict[str, Any]:
    both = {**user, **items}
    return {name: both[name] for name in order if name in both}


def _side_by_side(slices: Mapping[str, Tensor]) -> Tensor:
    values = list(slices.values())
    return values[0] if len(values) == 1 else tf.concat(values, axis=-1)
