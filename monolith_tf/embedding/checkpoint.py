"""Saving and restoring a store by feature id, in chunks of bounded memory."""

import dataclasses
import itertools
import math
import os
import time
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import checkpoint_files
from monolith_tf.embedding import counting
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding import sealed
from monolith_tf.embedding import sketch_parts
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.layout import shard_of
from monolith_tf.embedding.restoring import Restoring
from monolith_tf.embedding.saved_tables import SavedTables
from monolith_tf.embedding.shard_rows import COUNTERS
from monolith_tf.embedding.shard_rows import ShardRows

CHUNK_BYTES = 1 << 26
"""About how much of a shard is in flight while it is written or read."""

_OF_DAMAGE = (LookupError, TypeError, ValueError, tf.errors.InvalidArgumentError)
"""What may come of arrays that are not those that were written."""


def _group_entry(group: Group, stamps: Sequence[str]) -> dict[str, Any]:
    """What a manifest says of a group, still without its files."""
    return {
        "name": group.name,
        "slices": [
            {
                "name": part.name,
                "dim": part.dim,
                "optimizer": part.kind,
                "start": part.start,
                "state_start": part.state_start,
                "state_dim": sum(part.state_dims),
            }
            for part in group.parts
        ],
        "stamps": list(stamps),
        "tables": [
            {
                "name": table.name,
                "slot": table.slot,
                "large_integers": table.large_integers,
                # None where any number can be served.
                "largest": [
                    part.largest_served if math.isfinite(part.largest_served) else None
                    for part in table.row_slices()
                ],
            }
            for table in group.tables
        ],
        "rows_files": [],
        "counts_files": [],
        "sketch_files": [],
        "removed_files": [],
    }


@dataclasses.dataclass(frozen=True)
class RestoreReport:
    """What a restore did.

    Attributes:
      rows: Table name -> rows restored.
      new_tables: Tables that the checkpoint lacks, and that start empty.
      dropped_tables: Tables of the checkpoint that were left out.
      step: The step given to `save`, or None.
    """

    rows: dict[str, int]
    new_tables: tuple[str, ...]
    dropped_tables: tuple[str, ...]
    step: int | None


def save(
    directory: str,
    shards: Mapping[str, Sequence[ShardRows]],
    *,
    step: int | None,
    now_secs: float | None,
    since_step: int | None = None,
    follows: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a checkpoint; see `EmbeddingStore.save`.

    Args:
      directory: See there.
      shards: Group name -> shards.
      step: See there.
      now_secs: See there.
      since_step: See there.
      follows: Ids of the checkpoints on top of which what changed may be restored.
    """
    _make_directory(directory)
    manifest: dict[str, Any] = {
        "format": checkpoint_files.FORMAT,
        "id": uuid.uuid4().hex,
        "follows": None if since_step is None else list(follows),
        "since_step": since_step,
        "step": step,
        "secs": int(time.time() if now_secs is None else now_secs),
        "tables": [],
        "groups": [],
    }
    for number, group_shards in enumerate(shards.values()):
        group = group_shards[0].group
        entry = _group_entry(group, group_shards[0].stamp_names())
        counters = np.zeros([len(group.tables), len(COUNTERS)], np.int64)
        for place, shard in enumerate(group_shards):
            name = f"group-{number}-shard-{place}-of-{len(group_shards)}"
            entry["rows_files"].append(
                _save_rows(directory, name + ".rows", shard, since_step)
            )
            if since_step is not None:
                writer = checkpoint_files.ArrayWriter(directory, name + ".removed")
                writer.save(removed(shard, since_step))
                entry["removed_files"].append(writer.close())
            if shard.admission is not None and shard.admission.exact is not None:
                ids, counts = shard.admission.exact.export()
                file = _save_counts(directory, name + ".counts", ids, counts)
                entry["counts_files"].append(file)
            counters += shard.counters.numpy()
        sketches = list(_sketches(group_shards))
        for place, part in enumerate(sketch_parts.split(sketches)):
            name = f"group-{number}-part-{place}.sketch"
            writer = checkpoint_files.ArrayWriter(directory, name)
            writer.save(part.exported)
            whose = {"modulus": part.modulus, "residue": part.residue}
            entry["sketch_files"].append({**writer.close(), **whose})
        manifest["groups"].append(entry)
        for table, row in zip(group.tables, counters.tolist(), strict=True):
            manifest["tables"].append(
                {
                    "name": table.name,
                    "slot": table.slot,
                    "group": group.name,
                    "counters": dict(zip(COUNTERS, row, strict=True)),
                    "optimizers": {
                        part.name: optimizer_spec.to_plain(part.optimizer)
                        for part in table.row_slices()
                    },
                }
            )
    checkpoint_files.write_manifest(directory, manifest)
    return manifest


def restore(
    restoring: Restoring,
    shards: Mapping[str, Sequence[ShardRows]],
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
        _fill(restoring, shards)
        if not keep_others:
            for group_shards in shards.values():
                shard = group_shards[0]
                shard.locked(_carry_on_counters, shard, restoring.newest)
    except _OF_DAMAGE as error:
        # Files were whole a moment ago; no part of what they are now may stay.
        if not keep_others:
            clear()
        if not isinstance(error, sealed.DamagedError):
            restoring.verify()
        raise
    manifest = restoring.newest.manifest
    return RestoreReport(
        rows=restoring.newest.num_rows(),
        new_tables=restoring.newest.new_tables(),
        dropped_tables=restoring.newest.dropped_tables(),
        step=manifest["step"],
    )


def _fill(restoring: Restoring, shards: Mapping[str, Sequence[ShardRows]]) -> None:
    _reserve(shards, restoring.newest.num_rows())
    for group, chunk in restoring.rows():
        of_group = shards[group.name]
        for shard, mine in zip(of_group, _spread(chunk.ids, of_group), strict=True):
            shard.load(chunk.take(mine))
    for group, ids, counts in restoring.newest.counts():
        of_group = shards[group.name]
        for shard, mine in zip(of_group, _spread(ids, of_group), strict=True):
            if shard.admission is not None and shard.admission.exact is not None:
                shard.admission.exact.load(ids[mine], counts[mine])
    parts: dict[str, list[sketch_parts.Part]] = {}
    for group, part in restoring.newest.sketches():
        parts.setdefault(group.name, []).append(part)
    for name, of_name in parts.items():
        sketch_parts.load(of_name, list(_sketches(shards[name])))


def _reserve(
    shards: Mapping[str, Sequence[ShardRows]], num_rows: Mapping[str, int]
) -> None:
    """Makes the room that rows will take, in one piece where there are few so far."""
    for of_group in shards.values():
        tables = of_group[0].group.tables
        total = sum(num_rows.get(table.name, 0) for table in tables)
        for shard in of_group:
            # Some shards get a few more than others.
            shard.reserve(int(shard.next_row) + int(1.1 * total / len(of_group)))


def _sketches(shards: Sequence[ShardRows]) -> Iterator[counting.Sketch]:
    for shard in shards:
        if shard.admission is not None and shard.admission.sketch is not None:
            yield shard.admission.sketch


def _spread(ids: np.ndarray, shards: Sequence[ShardRows]) -> list[np.ndarray]:
    """Which of the ids fall to each shard, as masks."""
    if len(shards) == 1:
        return [np.ones(len(ids), bool)]
    of_ids = shard_of(tf.constant(ids), len(shards)).numpy()
    return [of_ids == number for number in range(len(shards))]


def _carry_on_counters(shard: ShardRows, saved: SavedTables) -> None:
    """Adds what was counted before, in one shard, save the rows that were loaded."""
    counters, num_rows = saved.counters(), saved.num_rows()
    added = np.zeros([len(shard.group.tables), len(COUNTERS)], np.int64)
    for row, table in zip(added, shard.group.tables, strict=True):
        of_table = dict(counters.get(table.name, {}))
        if "inserted" in of_table:  # Loading has counted them too.
            of_table["inserted"] -= num_rows.get(table.name, 0)
        for column, name in enumerate(COUNTERS):
            if name != "rows":
                row[column] = of_table.get(name, 0)
    shard.counters.assign_add(added)


def removed(shard: ShardRows, since_step: int) -> np.ndarray:
    """Ids that lost their row at a step or later."""
    ids = [ids for step, ids in shard.removed if step >= since_step]
    return np.unique(np.concatenate([np.zeros([0], np.int64), *ids]))


def _save_rows(
    directory: str, name: str, shard: ShardRows, since_step: int | None
) -> dict[str, Any]:
    writer = checkpoint_files.ArrayWriter(directory, name)
    num_rows = 0
    for chunk in shard.chunks(chunk_rows(shard.group), since_step=since_step):
        writer.save(chunk.ids)
        writer.save(chunk.weights)
        writer.save(chunk.state)
        for stamp in shard.stamp_names():
            writer.save(chunk.stamps[stamp])
        num_rows += len(chunk.ids)
    return {**writer.close(), "rows": num_rows}


def _save_counts(
    directory: str, name: str, ids: np.ndarray, counts: np.ndarray
) -> dict[str, Any]:
    writer = checkpoint_files.ArrayWriter(directory, name)
    if len(ids):
        writer.save(ids)
        writer.save(counts)
    return writer.close()


def chunk_rows(group: Group) -> int:
    """Rows of a group that make a chunk."""
    return max(1, CHUNK_BYTES // group.row_bytes)


def _make_directory(directory: str) -> None:
    """Makes a new directory for a checkpoint.

    Raises:
      ValueError: If it holds a checkpoint already.
    """
    if os.path.exists(os.path.join(directory, checkpoint_files.MANIFEST)):
        raise ValueError(
            "`directory` must not hold an embedding checkpoint already. "
            f"Received: directory={directory!r}."
        )
    os.makedirs(directory, exist_ok=True)
