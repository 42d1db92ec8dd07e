"""Writes a checkpoint of a store by feature id, in chunks of bounded memory.

The rows do not pass through this process: the parameter servers write them.
"""

import dataclasses
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import numpy as np
import tensorflow as tf

from monolith_tf import remote
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.optimizers import specs as optimizer_spec
from monolith_tf.embedding.saved import by_device
from monolith_tf.embedding.saved import files
from monolith_tf.embedding.saved import server_files
from monolith_tf.embedding.shard import counters
from monolith_tf.embedding.shard import sketch_parts
from monolith_tf.embedding.shard.shard import COUNTERS
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.shard.shard_counts import ShardCounts
from monolith_tf.embedding.shard.shard_rows import ALL
from monolith_tf.embedding.shard.shard_rows import ShardRows
from monolith_tf.embedding.shard.shard_rows import Which
from monolith_tf.types import JsonDict

CHUNK_BYTES = 1 << 26
"""About how much of a shard is in memory at a time while it is written or read."""

LIVE_CHUNK_BYTES = 1 << 24
"""The same while steps run, which a larger chunk would hold up."""


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


@dataclasses.dataclass(frozen=True)
class Since:
    """What a delta holds.

    Attributes:
      step: In the manifest: the delta goes on top of a checkpoint of this step or
        later.
      follows: Ids of the checkpoints on top of which it may be restored.
      periods: Group name -> period of each shard since which changes are written; None
        selects them by the step.
    """

    step: int
    follows: Sequence[str] = ()
    periods: Mapping[str, Sequence[int]] | None = None

    def which(self, group: str, place: int) -> Which:
        """Returns which rows of a shard are written."""
        if self.periods is None:
            return Which("step", self.step)
        return Which("changed", self.periods[group][place])

    def removed(self, group: str, place: int, shard: Shard) -> np.ndarray:
        """Returns the ids of a shard that lost their row."""
        if self.periods is None:
            return shard.removals.since_step(self.step)
        return shard.removals.since(self.periods[group][place])


@dataclasses.dataclass(frozen=True)
class What:
    """What is written.

    Attributes:
      since: What a delta holds; None for all rows.
      admission: Whether counts of ids that wait for admission are written: "whole", the
        "changed" ones where they are known, or "no".
      is_live: Whether rows change while they are written. Then all that changes must be
        written again afterwards; the shards are not locked.
      token: Token of `remote.call` on the shards' devices.
    """

    since: Since | None = None
    admission: Literal["whole", "changed", "no"] = "whole"
    is_live: bool = False
    token: str = ""


def save(
    directory: str,
    shards: Mapping[str, Sequence[Shard]],
    what: What,
    *,
    step: int | None,
    now_secs: float | None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Writes a checkpoint; see `EmbeddingStore.save`.

    Args:
      directory: See there.
      shards: Group name -> shards.
      what: What is written.
      step: See there.
      now_secs: See there.
      stop: Ends the work soon when it is set.

    Raises:
      StoppedError: If `stop` was set.
    """
    _make_directory(directory)
    since = what.since
    manifest: dict[str, Any] = {
        "format": files.FORMAT,
        "id": uuid.uuid4().hex,
        "follows": None if since is None else list(since.follows),
        "since_step": None if since is None else since.step,
        "step": step,
        "secs": int(time.time() if now_secs is None else now_secs),
        "tables": [],
        "groups": [],
    }
    stop = stop or threading.Event()
    numbers = {name: number for number, name in enumerate(shards)}

    def write(group: str, place: int, shard: Shard) -> JsonDict:
        count = len(shards[group])
        name = f"group-{numbers[group]}-shard-{place}-of-{count}"
        return _write_shard(directory, name, (group, place, shard), what, stop)

    written = by_device.run(shards, write, stop)
    for number, (name, group_shards) in enumerate(shards.items()):
        group = group_shards[0].group
        entry = group_entry(group)
        for of_shard in written[name]:
            for kind, file in of_shard.items():
                entry[kind].append(file)
        if any(file.get("is_partial") for file in entry["counts_files"]):
            manifest["format"] = files.FORMAT_OF_CHANGED_COUNTS
        if what.admission != "no":
            sketches = list(sketch_parts.of_shards(group_shards))
            for place, part in enumerate(sketch_parts.split(sketches)):
                file = files.write_sketch(
                    directory,
                    f"group-{number}-part-{place}.sketch",
                    part.exported,
                    is_packed=since is not None,
                )
                whose = {"modulus": part.modulus, "residue": part.residue}
                entry["sketch_files"].append({**file, **whose})
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


def _write_shard(
    directory: str,
    name: str,
    where: tuple[str, int, Shard],
    what: What,
    stop: threading.Event,
) -> JsonDict:
    """Writes the files of a shard; returns their manifest entries by kind."""
    group, place, shard = where
    since = what.since
    entries: JsonDict = {}
    if since is not None:
        writer = files.ArrayWriter(directory, name + ".removed")
        writer.save(since.removed(group, place, shard))
        entries["removed_files"] = writer.close()
    rows = ShardRows(
        shard,
        ALL if since is None else since.which(group, place),
        is_locked=not what.is_live,
        function=server_files.add,
        token=what.token,
    )
    size = chunk_rows(shard.group, is_live=what.is_live)
    file = _RemoteFile(directory, name + ".rows", shard.device, what.token)
    for _ in rows.send(size, *file.names):
        if stop.is_set():
            raise by_device.StoppedError(f"{directory} was given up half written.")
    entries["rows_files"] = file.finish()
    exact = None if shard.admission is None else shard.admission.exact
    if exact is not None and what.admission != "no":
        first = _first_period_of_counts(group, place, shard, what)
        counts = ShardCounts(shard, server_files.add_by_id, what.token)
        file = _RemoteFile(directory, name + ".counts", shard.device, what.token)
        counts.send(first, *file.names)
        entries["counts_files"] = file.finish()
        del entries["counts_files"]["rows"]
        if first:
            entries["counts_files"]["is_partial"] = True
    return entries


def _first_period_of_counts(group: str, place: int, shard: Shard, what: What) -> int:
    """Returns since when changed counts are written; 0 writes all of them."""
    since = what.since
    if what.admission != "changed" or since is None or since.periods is None:
        return 0
    first = since.periods[group][place]
    # Counts that a restore dropped leave no trace.
    return 0 if shard.cleared_in >= first else first


class _RemoteFile:
    """A file that is written by the process of a device.

    Attributes:
      names: Its directory and name, the first arguments of all calls.
    """

    def __init__(self, directory: str, name: str, device: str, token: str) -> None:
        self.names = (directory, name)
        self._device = device
        self._token = token
        self._call(server_files.begin)

    def finish(self) -> JsonDict:
        """Ends it, and returns its manifest entry."""
        entry: JsonDict = json.loads(self._call(server_files.finish))
        path = os.path.join(*self.names)
        size = os.path.getsize(path) if os.path.exists(path) else None
        if size != entry["bytes"]:
            raise FileNotFoundError(
                f"{path} must be in a folder that all tasks of the job share. The task "
                f"of {self._device} wrote {entry['bytes']} bytes there; here are "
                f"{size or 0}."
            )
        return entry

    def _call(self, function: Callable[..., Any]) -> bytes:
        with tf.device(self._device):
            found: bytes = remote.call(function, *self.names, token=self._token).numpy()
        return found


def chunk_rows(group: Group, *, is_live: bool = False) -> int:
    """Returns the number of rows in a chunk of a group."""
    chunk_bytes = LIVE_CHUNK_BYTES if is_live else CHUNK_BYTES
    return max(1, chunk_bytes // group.row_bytes)


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
