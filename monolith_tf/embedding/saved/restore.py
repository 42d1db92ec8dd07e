"""Fills a store from a checkpoint by feature id, in chunks of bounded memory."""

import dataclasses
import itertools
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.lookup.layout import shard_of
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.saved.chain import Chain
from monolith_tf.embedding.saved.read import SavedTables
from monolith_tf.embedding.shard import sketch_parts
from monolith_tf.embedding.shard.shard import COUNTERS
from monolith_tf.embedding.shard.shard import Shard

_OF_DAMAGE = (LookupError, TypeError, ValueError, tf.errors.InvalidArgumentError)
"""Errors that damaged arrays may cause."""


@dataclasses.dataclass(frozen=True)
class RestoreReport:
    """What a restore did.

    Attributes:
      rows: Table name -> rows restored.
      new_tables: Tables that the checkpoint lacks; they start empty.
      dropped_tables: Tables of the checkpoint that were left out.
      step: The step given to `save`, or None.
    """

    rows: dict[str, int]
    new_tables: tuple[str, ...]
    dropped_tables: tuple[str, ...]
    step: int | None


def restore(
    chain: Chain,
    shards: Mapping[str, Sequence[Shard]],
    *,
    keep_others: bool = False,
) -> RestoreReport:
    """Fills shards from a checkpoint; see `EmbeddingStore.restore`."""

    def clear() -> None:
        for shard in itertools.chain(*shards.values()):
            shard.clear()

    if not keep_others:
        clear()
    try:
        _fill(chain, shards)
        if not keep_others:
            for group_shards in shards.values():
                shard = group_shards[0]
                shard.lock.run(_carry_on_counters, shard, chain.newest)
    except _OF_DAMAGE as error:
        # The files were intact when opened; nothing read from them since may stay.
        if not keep_others:
            clear()
        if not isinstance(error, sealed.DamagedError):
            chain.verify()
        raise
    manifest = chain.newest.manifest
    return RestoreReport(
        rows=chain.newest.num_rows(),
        new_tables=chain.newest.new_tables(),
        dropped_tables=chain.newest.dropped_tables(),
        step=manifest["step"],
    )


def _fill(chain: Chain, shards: Mapping[str, Sequence[Shard]]) -> None:
    _reserve(shards, chain.newest.num_rows())
    for group, chunk in chain.rows():
        of_group = shards[group.name]
        for shard, mine in zip(of_group, _spread(chunk.ids, of_group), strict=True):
            shard.load(chunk.take(mine))
    for group, ids, counts in chain.counts():
        of_group = shards[group.name]
        for shard, mine in zip(of_group, _spread(ids, of_group), strict=True):
            if shard.admission is not None and shard.admission.exact is not None:
                period = int(shard.period)
                shard.admission.exact.load(ids[mine], counts[mine], period)
    parts: dict[str, list[sketch_parts.Part]] = {}
    for group, part in chain.newest.sketches():
        parts.setdefault(group.name, []).append(part)
    for name, of_name in parts.items():
        sketch_parts.load(of_name, list(sketch_parts.of_shards(shards[name])))


def _reserve(
    shards: Mapping[str, Sequence[Shard]], num_rows: Mapping[str, int]
) -> None:
    """Makes room for the rows to come, in one block if there are few rows so far."""
    for of_group in shards.values():
        tables = of_group[0].group.tables
        total = sum(num_rows.get(table.name, 0) for table in tables)
        for shard in of_group:
            # Some shards get a few more than others.
            shard.reserve(int(shard.next_row) + int(1.1 * total / len(of_group)))


def _spread(ids: np.ndarray, shards: Sequence[Shard]) -> list[np.ndarray]:
    """Returns for each shard a mask of the ids that belong to it."""
    if len(shards) == 1:
        return [np.ones(len(ids), bool)]
    of_ids = shard_of(tf.constant(ids), len(shards)).numpy()
    return [of_ids == number for number in range(len(shards))]


def _carry_on_counters(shard: Shard, saved: SavedTables) -> None:
    """Adds the saved counters to one shard, without the rows that were just loaded."""
    counters, num_rows = saved.counters(), saved.num_rows()
    added = np.zeros([len(shard.group.tables), len(COUNTERS)], np.int64)
    for row, table in zip(added, shard.group.tables, strict=True):
        of_table = dict(counters.get(table.name, {}))
        if "inserted" in of_table:  # Loading counted these rows again.
            of_table["inserted"] -= num_rows.get(table.name, 0)
        for column, name in enumerate(COUNTERS):
            if name != "rows":
                row[column] = of_table.get(name, 0)
    shard.counters.assign_add(added)
