"""Describes where the rows of a bad batch come from, and what is wrong with them."""

import numpy as np
import tensorflow as tf

from monolith_tf.data import windows
from monolith_tf.data.batch_source import BatchSource
from monolith_tf.models import base
from monolith_tf.models import network as network_lib


def explain(
    network: network_lib.Network,
    source: BatchSource,
    epoch: int,
    batch: int,
    cut: windows.Cut,
) -> str:
    """Describes a batch.

    The reading order depends only on seed, epoch and position, so the batch is read
    again and not kept during training.

    Args:
      network: The network.
      source: The data.
      epoch: Epoch of the batch.
      batch: Its position in the epoch.
      cut: How the epoch is cut into batches.
    """
    places = "; ".join(
        f"{place.file} rows {place.first_row} to {place.last_row}"
        for place in source.locate(epoch, batch, cut=cut)
    )
    columns = next(iter(source.dataset(epoch, batch, cut=cut)))
    encoded, pulled = network.lookup(columns, base.Mode.EVALUATE)
    labels, weights = network.targets(columns)
    values = {
        **{f"feature `{name}`": value for name, value in encoded.dense.items()},
        **{
            f"embedding of `{name}`": value
            for name, slices in network.store.combine(pulled).items()
            for value in slices.values()
        },
        **{f"label `{name}`": value for name, value in labels.items()},
        **({} if weights is None else {"weights": weights}),
    }
    odd = [name for name, value in values.items() if not _finite(value)]
    found = (
        f"Not finite in it: {', '.join(odd)}."
        if odd
        else "Its features, embeddings, labels and weights are finite; the model's "
        f"variables are not. Its features: {', '.join(_features(encoded))}."
    )
    outside = [f"`{name}`" for name, label in labels.items() if not _from_0_to_1(label)]
    if outside and not odd:
        found += (
            f" The label {', '.join(outside)} is not from 0 to 1, as a log loss needs: "
            "set its `equals`, or use another loss."
        )
    place = f": {places}" if places else ""
    return f"Its batch is number {batch} of epoch {epoch}{place}. {found}"


def _from_0_to_1(value: object) -> bool:
    array = np.asarray(value)
    return bool(((array >= 0) & (array <= 1)).all())


def _features(encoded: object) -> list[str]:
    return [*encoded.ids, *encoded.dense]  # type: ignore[attr-defined]


def _finite(value: object) -> bool:
    if isinstance(value, tf.RaggedTensor):
        value = value.flat_values
    return bool(np.isfinite(np.asarray(value)).all())
