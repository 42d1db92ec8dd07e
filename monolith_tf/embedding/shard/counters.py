"""What the shards of a store have counted, by table."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.shard.shard import COUNTERS
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor


def of_group(shards: Sequence[Shard]) -> np.ndarray:
    """Returns the sum over the shards of a group, `[tables, counters]`."""
    return np.sum([shard.counters.numpy() for shard in shards], axis=0)


def in_graph(
    tables: Sequence[TableSpec], shards: Mapping[str, Sequence[Shard]]
) -> dict[str, Tensor]:
    """See `EmbeddingStore.counters`."""
    if not tables:
        return dict.fromkeys(COUNTERS, tf.zeros([0], tf.int64))
    place = {table.name: i for i, table in enumerate(tables)}
    order, totals = [], []
    for group_shards in shards.values():
        order += [place[table.name] for table in group_shards[0].group.tables]
        totals.append(tf.add_n([s.counters.read_value() for s in group_shards]))
    by_table = tf.gather(tf.concat(totals, axis=0), tf.argsort(order))
    return dict(zip(COUNTERS, tf.unstack(by_table, axis=1), strict=True))


def of_tables(
    tables: Sequence[TableSpec], shards: Mapping[str, Sequence[Shard]]
) -> dict[str, dict[str, int]]:
    """See `EmbeddingStore.table_counters`."""
    found = {}
    for group_shards in shards.values():
        group, totals = group_shards[0].group, of_group(group_shards).tolist()
        for table, counts in zip(group.tables, totals, strict=True):
            named = dict(zip(COUNTERS, counts, strict=True))
            found[table.name] = named | {"bytes": named["rows"] * group.bytes_per_id}
    return {table.name: found[table.name] for table in tables}
