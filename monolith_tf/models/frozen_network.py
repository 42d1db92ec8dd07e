"""A network over frozen tables, as an export has it."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.features import encode
from monolith_tf.models import base
from monolith_tf.models.network import Network
from monolith_tf.types import Tensor


class FrozenNetwork(Network[FrozenStore]):
    """A network that reads rows and never trains them.

    It looks rows up by raw integers where the store can, and hashes the rest.
    """

    @classmethod
    def of(cls, network: Network, store: FrozenStore) -> "FrozenNetwork":
        """Returns a network with the parts of another, over frozen tables."""
        return cls(
            network.encoder,
            store,
            network.model,
            labels=network.labels,
            weight=network.weight,
        )

    def lookup(
        self, columns: Mapping[str, Tensor], mode: base.Mode, **when: object
    ) -> tuple[encode.FeatureBatch, Any]:
        """See base class; `mode` must not be `TRAIN`."""
        if mode is base.Mode.TRAIN:
            raise ValueError(
                "`mode` must be EVAL or PREDICT: frozen tables do not learn. Received: "
                f"mode={mode}."
            )
        return self.encoder.encode(columns), self._found(self.encoder, columns)

    def _found(
        self, encoder: encode.FeatureEncoder, columns: Mapping[str, Tensor]
    ) -> Any:
        return self.store.find_values(encoder.values(columns, self.store.integers))

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


def _merged(
    order: Iterable[str], user: Mapping[str, Tensor], items: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    both = {**user, **items}
    return {name: both[name] for name in order if name in both}
