"""Two towers, the user's and the item's, trained to find items for users."""

import dataclasses

import tensorflow as tf

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.types import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTowerParams:
    """Parameters of `TwoTower`.

    Attributes:
      label: How much a row counts: 0 for a user that did not take to the item.
      user_features: What the user's tower reads.
      item_features: What the item's tower reads.
      item: The id feature by which rows of a batch are known to have the same item.
      item_interval: An id feature of the item too, with a table of its own of `dim` 1
        and the optimizer `batch_softmax`: the mean steps between two batches with the
        item, by which the loss is corrected. None does not correct it.
      user_units: Widths of the user's tower; the last is that of the embedding.
      item_units: Widths of the item's tower, with the same last one.
      temperature: What scores are divided by in the loss, above 0.
      normalize: Whether embeddings are scaled to length 1.
      dropout: Share of a hidden layer's units dropped in training.
    """

    label: str
    user_features: tuple[str, ...]
    item_features: tuple[str, ...]
    item: str
    item_interval: str | None = None
    user_units: tuple[int, ...] = (64, 32)
    item_units: tuple[int, ...] = (64, 32)
    temperature: float = 0.05
    normalize: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.user_features or not self.item_features:
            raise ValueError(
                "`user_features` and `item_features` must name at least one feature "
                f"each. Received: user_features={self.user_features}, "
                f"item_features={self.item_features}."
            )
        if self.user_units[-1:] != self.item_units[-1:]:
            raise ValueError(
                "`user_units` and `item_units` must end in the same width. Received: "
                f"user_units={self.user_units}, item_units={self.item_units}."
            )
        if self.temperature <= 0:
            raise ValueError(
                "`temperature` must be above 0. "
                f"Received: temperature={self.temperature}."
            )


class TwoTower(base.Model):
    """Embeds users and items so that a user's items have the greatest products.

        u, v = user_tower(user features), item_tower(item features)
        s_ij = u_i @ v_j / temperature + log(max(interval_j, 1))
        loss = sum_i label_i * (logsumexp_j(s_ij) - s_ii) / sum_i label_i

    over the rows j of the batch, but for those that have the item of row i. Predictions
    are u_i @ v_i; exports give u and v too, as `user_embedding` and `item_embedding`.

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
            # The store updates rows that have a gradient, whatever it is.
            loss += 0.0 * tf.reduce_sum(intervals)
        return dataclasses.replace(spec, loss=loss)

    def _embed(
        self, tower: layers.MLP, features: tuple[str, ...], inputs: base.Inputs
    ) -> Tensor:
        # What `concat` gives of these features, in their order.
        both = {**inputs.embeddings, **inputs.dense}
        x = base.Inputs(embeddings={name: both[name] for name in features}).concat()
        embeddings = tower(x)
        if self._params.normalize:
            embeddings = tf.math.l2_normalize(embeddings, axis=1)
        return embeddings
