"""Writes a checkpoint of a store by feature id, in chunks of bounded memory."""

import math
import os
import time
import uuid
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.optimizers import specs as optimizer_spec
from monolith_tf.embedding.saved import files
from monolith_tf.embedding.shard import counters
from monolith_tf.embedding.shard import sketch_parts
from monolith_tf.embedding.shard.shard import COUNTERS
from monolith_tf.embedding.shard.shard import Shard

CHUNK_BYTES = 1 << 26
"""About how much of a shard is in memory at a time while it is written or read."""


def group_entry(group: Group) -> dict[str, Any]:
    """Returns the manifest entry of a group, without its files so far."""
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
        "stamps": list(group.stamps),
        "tables": [
            {
                "name": table.name,
                "slot": table.slot,
                "large_integers": table.large_integers,
                # None if any number can be served.
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


def save(
    directory: str,
    shards: Mapping[str, Sequence[Shard]],
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
      follows: Ids of the checkpoints on top of which a delta may be restored.
    """
    _make_directory(directory)
    manifest: dict[str, Any] = {
        "format": files.FORMAT,
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
        entry = group_entry(group)
        for place, shard in enumerate(group_shards):
            name = f"group-{number}-shard-{place}-of-{len(group_shards)}"
            entry["rows_files"].append(
                _save_rows(directory, name + ".rows", shard, since_step)
            )
            if since_step is not None:
                writer = files.ArrayWriter(directory, name + ".removed")
                writer.save(removed(shard, since_step))
                entry["removed_files"].append(writer.close())
            if shard.admission is not None and shard.admission.exact is not None:
                ids, counts = shard.admission.exact.export()
                file = _save_counts(directory, name + ".counts", ids, counts)
                entry["counts_files"].append(file)
        sketches = list(sketch_parts.of_shards(group_shards))
        for place, part in enumerate(sketch_parts.split(sketches)):
            name = f"group-{number}-part-{place}.sketch"
            writer = files.ArrayWriter(directory, name)
            writer.save(part.exported)
            whose = {"modulus": part.modulus, "residue": part.residue}
            entry["sketch_files"].append({**writer.close(), **whose})
        manifest["groups"].append(entry)
        totals = counters.of_group(group_shards).tolist()
        for table, row in zip(group.tables, totals, strict=True):
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
    files.write_manifest(directory, manifest)
    return manifest


def removed(shard: Shard, since_step: int) -> np.ndarray:
    """Returns the ids that lost their row at a step or later."""
    ids = [ids for step, ids in shard.removed if step >= since_step]
    return np.unique(np.concatenate([np.zeros([0], np.int64), *ids]))


def _save_rows(
    directory: str, name: str, shard: Shard, since_step: int | None
) -> dict[str, Any]:
    writer = files.ArrayWriter(directory, name)
    num_rows = 0
    for chunk in shard.chunks(chunk_rows(shard.group), since_step=since_step):
        writer.save(chunk.ids)
        writer.save(chunk.weights)
        writer.save(chunk.state)
        for stamp in shard.group.stamps:
            writer.save(chunk.stamps[stamp])
        num_rows += len(chunk.ids)
    return {**writer.close(), "rows": num_rows}


def _save_counts(
    directory: str, name: str, ids: np.ndarray, counts: np.ndarray
) -> dict[str, Any]:
    writer = files.ArrayWriter(directory, name)
    if len(ids):
        writer.save(ids)
        writer.save(counts)
    return writer.close()


def chunk_rows(group: Group) -> int:
    """Returns the number of rows in a chunk of a group."""
    return max(1, CHUNK_BYTES // group.row_bytes)


def _make_directory(directory: str) -> None:
    """Makes a new directory for a checkpoint.

    Raises:
      ValueError: If it holds a checkpoint already.
    """
    if os.path.exists(os.path.join(directory, files.MANIFEST)):
        raise ValueError(
            "`directory` must not hold an embedding checkpoint already. "
            f"Received: directory={directory!r}."
        )
    os.makedirs(directory, exist_ok=True)
