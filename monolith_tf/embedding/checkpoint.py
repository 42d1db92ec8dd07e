"""Saving and restoring a store by feature id, in chunks of bounded memory."""

import dataclasses
import itertools
import os
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import checkpoint_files
from monolith_tf.embedding import row_update
from monolith_tf.embedding.checkpoint_files import Chunk
from monolith_tf.embedding.layout import SLOT_SHIFT
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.layout import shard_of
from monolith_tf.embedding.shard_rows import COUNTERS
from monolith_tf.embedding.shard_rows import STAMPS
from monolith_tf.embedding.shard_rows import ShardRows
from monolith_tf.embedding.spec import TableSpec

CHUNK_BYTES = 1 << 26
"""About how much of a shard is in flight while it is written or read."""

_VALUE_MASK = (1 << SLOT_SHIFT) - 1


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
        "width": group.width,
        "stamps": list(stamps),
        "tables": [{"name": table.name, "slot": table.slot} for table in group.tables],
        "rows_files": [],
        "counts_files": [],
    }


@dataclasses.dataclass(frozen=True)
class _Route:
    """Where the rows of a saved table go.

    Attributes:
      table: The table they become part of.
      group: Its group.
      copies: (saved columns, columns) that are copied; the rest starts anew.
    """

    table: TableSpec
    group: Group
    copies: tuple[tuple[slice, slice], ...]


class Restoring:
    """Reads a checkpoint as rows of other, or the same, groups.

    Args:
      directory: Of the checkpoint.
      groups: The groups to fill.
      seed: Of the values of slices that the checkpoint lacks.
      aliases: Saved table name -> table name; by default they are the same.
      with_optimizer_state: Whether optimizer state is read too.

    Raises:
      ValueError: If the checkpoint is damaged or does not fit the tables.
    """

    def __init__(
        self,
        directory: str,
        groups: Sequence[Group],
        *,
        seed: int,
        aliases: Mapping[str, str] | None = None,
        with_optimizer_state: bool = True,
    ) -> None:
        self.directory = directory
        self.manifest = checkpoint_files.read_manifest(directory)
        checkpoint_files.verify(directory, self.manifest)
        self._seed = seed
        self._with_state = with_optimizer_state
        self._tables = {t.name: (t, group) for group in groups for t in group.tables}
        self._names = self._renamed(aliases or {})

    def rows(self) -> Iterator[tuple[Group, Chunk]]:
        """All rows of known tables, chunk by chunk, in the columns of their group."""
        for saved in self.manifest["groups"]:
            routes = self._routes(saved)
            for chunk in checkpoint_files.read_rows(self.directory, saved):
                slots = chunk.ids >> SLOT_SHIFT
                for slot, route in routes.items():
                    mine = slots == slot
                    if mine.any():
                        yield route.group, self._converted(chunk, mine, route)

    def counts(self) -> Iterator[tuple[Group, np.ndarray, np.ndarray]]:
        """Ids of known tables that wait for admission, and their counts."""
        for saved in self.manifest["groups"]:
            routes = self._routes(saved)
            for ids, counts in checkpoint_files.read_counts(self.directory, saved):
                for slot, route in routes.items():
                    mine = ids >> SLOT_SHIFT == slot
                    if mine.any():
                        yield route.group, _with_slot(ids[mine], route), counts[mine]

    def counters(self) -> dict[str, dict[str, int]]:
        """Table name -> what happened to it before the checkpoint."""
        return {
            self._names[saved["name"]]: saved["counters"]
            for saved in self.manifest["tables"]
            if saved["name"] in self._names
        }

    def num_rows(self) -> dict[str, int]:
        """Table name -> rows that `rows` brings."""
        return {name: counters["rows"] for name, counters in self.counters().items()}

    def new_tables(self) -> tuple[str, ...]:
        """Tables that the checkpoint lacks."""
        return tuple(set(self._tables) - set(self._names.values()))

    def dropped_tables(self) -> tuple[str, ...]:
        """Tables of the checkpoint that are left out."""
        saved = [table["name"] for table in self.manifest["tables"]]
        return tuple(name for name in saved if name not in self._names)

    def _renamed(self, aliases: Mapping[str, str]) -> dict[str, str]:
        """Saved name -> name, of tables that are still there."""
        saved = [table["name"] for table in self.manifest["tables"]]
        for old, new in aliases.items():
            if old not in saved or new not in self._tables:
                raise ValueError(
                    "`aliases` must map a table of the checkpoint to one of the store. "
                    f"Received: aliases={{{old!r}: {new!r}}}; the checkpoint holds "
                    f"{saved}, the store {list(self._tables)}."
                )
        names: dict[str, str] = {}
        for old in saved:
            new = aliases.get(old, old)
            if new not in self._tables:
                continue
            if new in names.values():
                raise ValueError(
                    "`aliases` must not merge tables. "
                    f"Received: aliases={dict(aliases)}, two of which fill {new!r}."
                )
            names[old] = new
        return names

    def _routes(self, saved: Mapping[str, Any]) -> dict[int, _Route]:
        """Slot in the checkpoint -> where its rows go."""
        routes = {}
        for entry in saved["tables"]:
            if entry["name"] in self._names:
                table, group = self._tables[self._names[entry["name"]]]
                copies = self._copies(saved["slices"], table, group)
                routes[entry["slot"]] = _Route(table, group, copies)
        return routes

    def _copies(
        self, saved: Sequence[Mapping[str, Any]], table: TableSpec, group: Group
    ) -> tuple[tuple[slice, slice], ...]:
        by_name = {part["name"]: part for part in saved}
        copies = []
        for part in group.parts:
            old = by_name.get(part.name)
            if old is None:
                continue
            if old["dim"] != part.dim:
                raise ValueError(
                    f"Checkpoint {self.directory} holds table `{table.name}`, slice "
                    f"`{part.name}`, with dim={old['dim']}; the spec says "
                    f"dim={part.dim}."
                )
            copies.append(
                (_columns(old["start"], part.dim), _columns(part.start, part.dim))
            )
            if not self._with_state:
                continue
            if old["optimizer"] != part.kind:
                raise ValueError(
                    f"Checkpoint {self.directory} holds table `{table.name}`, slice "
                    f"`{part.name}`, with optimizer={old['optimizer']!r}; the spec says "
                    f"{part.kind!r}. Restore without optimizer state to start its state "
                    "anew."
                )
            size = sum(part.state_dims)
            copies.append(
                (_columns(old["state_start"], size), _columns(part.state_start, size))
            )
        return tuple(copies)

    def _converted(self, chunk: Chunk, mine: np.ndarray, route: _Route) -> Chunk:
        ids = _with_slot(chunk.ids[mine], route)
        saved = chunk.rows[mine]
        copied = sum(columns.stop - columns.start for _, columns in route.copies)
        if copied == route.group.width:
            rows = np.empty([len(ids), copied], np.float32)
        else:
            rows = _initial(route.group, ids, self._seed)
        for old, new in route.copies:
            rows[:, new] = saved[:, old]
        # A row whose last update is not known counts as updated at the checkpoint.
        stamps = {
            name: chunk.stamps[name][mine]
            if name in chunk.stamps
            else np.full(len(ids), self.manifest[name] or 0)
            for name in STAMPS
        }
        return Chunk(ids, rows, stamps)


@dataclasses.dataclass(frozen=True)
class RestoreReport:
    """What a restore did.

    Attributes:
      rows: Table name -> rows restored.
      new_tables: Tables that the checkpoint lacks, and that start empty.
      dropped_tables: Tables of the checkpoint that were left out.
      step: The step given to `save`, or None.
      retrace: Whether variables were replaced, so that functions traced before must be
        traced again.
    """

    rows: dict[str, int]
    new_tables: tuple[str, ...]
    dropped_tables: tuple[str, ...]
    step: int | None
    retrace: bool


def save(
    directory: str,
    shards: Mapping[str, Sequence[ShardRows]],
    *,
    step: int | None,
    now_secs: float | None,
) -> dict[str, Any]:
    """Writes a checkpoint; see `EmbeddingStore.save`."""
    _make_directory(directory)
    manifest: dict[str, Any] = {
        "format": checkpoint_files.FORMAT,
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
            entry["rows_files"].append(_save_rows(directory, name + ".rows", shard))
            if shard.admission is not None:
                file = _save_counts(directory, name + ".counts", shard)
                entry["counts_files"].append(file)
            counters += shard.counters.numpy()
        manifest["groups"].append(entry)
        for table, row in zip(group.tables, counters.tolist(), strict=True):
            manifest["tables"].append(
                {
                    "name": table.name,
                    "slot": table.slot,
                    "group": group.name,
                    "counters": dict(zip(COUNTERS, row, strict=True)),
                }
            )
    checkpoint_files.write_manifest(directory, manifest)
    return manifest


def restore(
    restoring: "Restoring", shards: Mapping[str, Sequence[ShardRows]]
) -> RestoreReport:
    """Fills shards from a checkpoint; see `EmbeddingStore.restore`."""
    for shard in itertools.chain(*shards.values()):
        shard.clear()
    capacity = {id(s): int(s.capacity) for s in itertools.chain(*shards.values())}
    for group, chunk in restoring.rows():
        of_group = shards[group.name]
        for shard, mine in zip(of_group, _spread(chunk.ids, of_group), strict=True):
            shard.load(chunk.take(mine))
    for group, ids, counts in restoring.counts():
        of_group = shards[group.name]
        for shard, mine in zip(of_group, _spread(ids, of_group), strict=True):
            if shard.admission is not None:
                shard.admission.load(ids[mine], counts[mine])
    for group_shards in shards.values():
        _load_counters(group_shards[0], restoring.counters())
    manifest = restoring.manifest
    return RestoreReport(
        rows=restoring.num_rows(),
        new_tables=restoring.new_tables(),
        dropped_tables=restoring.dropped_tables(),
        step=manifest["step"],
        retrace=any(
            int(s.capacity) != capacity[id(s)]
            for s in itertools.chain(*shards.values())
        ),
    )


def _spread(ids: np.ndarray, shards: Sequence[ShardRows]) -> list[np.ndarray]:
    """Which of the ids fall to each shard, as masks."""
    if len(shards) == 1:
        return [np.ones(len(ids), bool)]
    of_ids = shard_of(tf.constant(ids), len(shards)).numpy()
    return [of_ids == number for number in range(len(shards))]


def _load_counters(shard: ShardRows, counters: Mapping[str, Mapping[str, int]]) -> None:
    """Carries what was counted before, save the rows in use, on in one shard."""
    values = shard.counters.numpy()
    for row, table in zip(values, shard.group.tables, strict=True):
        for column, name in enumerate(COUNTERS):
            if name != "rows" and table.name in counters:
                row[column] = counters[table.name].get(name, 0)
    shard.counters.assign(values)


def _save_rows(directory: str, name: str, shard: ShardRows) -> dict[str, Any]:
    writer = checkpoint_files.ArrayWriter(directory, name)
    num_rows = 0
    for chunk in shard.chunks(chunk_rows(shard.group)):
        writer.save(chunk.ids)
        writer.save(chunk.rows)
        for stamp in shard.stamp_names():
            writer.save(chunk.stamps[stamp])
        num_rows += len(chunk.ids)
    return {**writer.close(), "rows": num_rows}


def _save_counts(directory: str, name: str, shard: ShardRows) -> dict[str, Any]:
    writer = checkpoint_files.ArrayWriter(directory, name)
    ids, counts = shard.admission.export()
    if len(ids):
        writer.save(ids)
        writer.save(counts)
    return writer.close()


def _initial(group: Group, ids: np.ndarray, seed: int) -> np.ndarray:
    return np.array(row_update.initial_rows(group, tf.constant(ids), seed))


def _columns(start: int, size: int) -> slice:
    return slice(start, start + size)


def _with_slot(ids: np.ndarray, route: _Route) -> np.ndarray:
    slot = route.table.slot or 0
    return (ids & _VALUE_MASK) | (np.int64(slot) << SLOT_SHIFT)


def chunk_rows(group: Group) -> int:
    """Rows of a group that make a chunk."""
    return max(1, CHUNK_BYTES // (4 * group.width + 16))


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
