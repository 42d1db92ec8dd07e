"""A network without training whose outputs can be computed by hand."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.encode import FeatureEncoder
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.models import base
from monolith_tf.models.frozen_network import FrozenNetwork
from monolith_tf.types import Tensor

SLOTS = {"user": 1, "item": 2}
COLUMNS = {
    "user": ColumnType(dtype="int64"),
    "history": ColumnType(dtype="int64", is_list=True),
    "item": ColumnType(dtype="int64"),
    "price": ColumnType(dtype="float32"),
}


class Sum(base.Model):
    """Sums all numbers of an example; `click` is the sigmoid of the sum."""

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See base class."""
        total = tf.reduce_sum(inputs.concat(), axis=1)
        return base.EstimatorSpec(
            mode=mode,
            predictions={"click": tf.sigmoid(total)},
            extra_outputs={"sums": tf.stack([total, -total], axis=1)},
        )


def make(
    tables: Sequence[TableSpec] = (), model: base.Model | None = None
) -> FrozenNetwork:
    """Returns the network with an empty store.

    Args:
      tables: The tables `user` and `item`; by default plain tables of width 3.
      model: The model; a `Sum` by default.
    """
    features = [
        FeatureSpec(name="user", kind="id"),
        FeatureSpec(name="history", kind="id_list", table="item", combiner="mean"),
        FeatureSpec(name="item", kind="id"),
        FeatureSpec(name="price", kind="dense"),
    ]
    specs = tables or [TableSpec(name=n, slot=s, dim=3) for n, s in SLOTS.items()]
    columns = [
        ColumnSpec(feature="user", table="user"),
        ColumnSpec(feature="history", table="item", combiner="mean"),
        ColumnSpec(feature="item", table="item"),
    ]
    store = FrozenStore(specs, columns, integers=SLOTS)
    large = {table.name: table.large_integers for table in specs}
    encoder = FeatureEncoder(features, SLOTS, large_integers=large)
    return FrozenNetwork(encoder, store, model or Sum())


def feature_ids(table: str, values: Sequence[int]) -> np.ndarray:
    """Returns the feature ids of raw values."""
    slot = SLOTS[table] << ids_lib.HASH_BITS
    return np.array([slot | ids_lib.hash_integer(value) for value in values], np.int64)


def rows(
    weights: Mapping[str, Mapping[int, np.ndarray]],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Converts table -> raw value -> row to rows for an export."""
    return [
        (feature_ids(name, list(table)), np.array(list(table.values()), np.float32))
        for name, table in weights.items()
    ]


def sample(
    user: Sequence[int],
    history: Sequence[Sequence[int]],
    item: Sequence[int],
    price: Sequence[float],
) -> dict[str, Tensor]:
    """Returns raw columns."""
    return {
        "user": np.array(user, np.int64),
        "history": tf.ragged.constant(history, tf.int64, row_splits_dtype=tf.int64),
        "item": np.array(item, np.int64),
        "price": np.array(price, np.float32),
    }


def sums(
    weights: Mapping[str, Mapping[int, np.ndarray]], columns: Mapping[str, Tensor]
) -> np.ndarray:
    """Returns the sums of `Sum`, computed with NumPy."""

    def row(table: str, value: int) -> np.ndarray:
        return np.asarray(weights[table].get(value, np.zeros(3)))

    totals = []
    for user, history, item, price in zip(
        columns["user"],
        columns["history"].to_list(),
        columns["item"],
        columns["price"],
        strict=True,
    ):
        past = [row("item", value) for value in history] or [np.zeros(3)]
        total = row("user", user) + np.mean(past, axis=0) + row("item", item)
        totals.append(total.sum() + price)
    return np.array(totals)
