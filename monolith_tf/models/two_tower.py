"""A user tower and an item tower, trained to retrieve items for users."""

import dataclasses

import tensorflow as tf

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.models.params import TwoTowerParams
from monolith_tf.types import Tensor


class TwoTower(base.Model):
    """Embeds users and items so that a user's items have the largest dot products.

        u, v = user_tower(user features), item_tower(item features)
        s_ij = u_i @ v_j / temperature + log(max(interval_j, 1))
        loss = sum_i label_i * (logsumexp_j(s_ij) - s_ii) / sum_i label_i

    over the rows j of the batch, except other rows with the item of row i. Predictions
    are u_i @ v_i; exports also return u and v, as `user_embedding` and
    `item_embedding`.

    Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", RecSys 2019.
    """

    Params = TwoTowerParams

    def __init__(self, params: TwoTowerParams) -> None:
        super().__init__(name="two_tower")
        self._params = params
        self._user, self._item = (
            layers.MLP(units, dropout=params.dropout, use_weight_norm=False, name=name)
            for name, units in (
                ("user", params.user_units),
                ("item", params.item_units),
            )
        )

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        params = self._params
        users = self._embed(self._user, params.user_features, inputs)  # [batch, dim]
        items = self._embed(self._item, params.item_features, inputs)  # [batch, dim]
        spec = base.EstimatorSpec(
            mode=mode,
            predictions={params.label: tf.reduce_sum(users * items, axis=1)},
            extra_outputs={"user_embedding": users, "item_embedding": items},
        )
        if mode is base.Mode.PREDICT:
            return spec
        weights = inputs.labels[params.label]
        if inputs.weights is not None:
            weights *= inputs.weights
        intervals = None
        if params.item_interval is not None:
            intervals = inputs.embeddings[params.item_interval]  # [batch, 1]
        loss = losses.batch_softmax_loss(
            users,
            items,
            intervals,
            weights,
            item_ids=inputs.keys[params.item],
            normalize=False,
            temperature=params.temperature,
            reduction="mean",
        )
        if intervals is not None:
            # The store updates every row with a gradient, even a zero one.
            loss += 0.0 * tf.reduce_sum(intervals)
        return dataclasses.replace(spec, loss=loss)

    def _embed(
        self, tower: layers.MLP, features: tuple[str, ...], inputs: base.Inputs
    ) -> Tensor:
        # `concat` of these features only, in this order.
        both = {**inputs.embeddings, **inputs.dense}
        x = base.Inputs(embeddings={name: both[name] for name in features}).concat()
        embeddings = tower(x)
        if self._params.normalize:
            embeddings = tf.math.l2_normalize(embeddings, axis=1)
        return embeddings
