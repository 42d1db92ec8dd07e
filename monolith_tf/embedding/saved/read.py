"""Reads one saved directory as rows of tables that may differ from the saved ones."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf import ids as ids_lib
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.optimizers import rules as optimizers
from monolith_tf.embedding.optimizers import specs as optimizer_spec
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.shard import group_kind
from monolith_tf.embedding.shard import row_update
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.clock import STAMPS
from monolith_tf.embedding.shard.sketch_parts import Part
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.ids import HASH_BITS
from monolith_tf.ids import NUM_SLOTS

_VALUE_MASK = (1 << HASH_BITS) - 1

_Copies: TypeAlias = tuple[tuple[slice, slice], ...]


class _Route(NamedTuple):
    """Where rows of some tables of a saved group go.

    Attributes:
      group: The group they become part of.
      new_slots: Slot in the checkpoint -> new slot, `[NUM_SLOTS]`; -1 for others.
      was_exact: Whether ids were saved as plain integers.
      weights: (saved columns, columns) of weights that are copied; the others get
        initial values.
      state: The same for optimizer state.
    """

    group: Group
    new_slots: np.ndarray
    was_exact: bool
    weights: _Copies
    state: _Copies

    def is_whole(self) -> bool:
        """Returns whether all columns are copied."""
        copied = [
            sum(new.stop - new.start for _, new in copies)
            for copies in (self.weights, self.state)
        ]
        return copied == [self.group.dim, self.group.state_dim]

    def renamed(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns which ids take this route, `[n]`, bool, and their new ids."""
        if self.was_exact:
            return np.ones(len(ids), bool), ids
        slots = self.new_slots[ids >> HASH_BITS]
        mine = slots >= 0
        hashes = ids[mine] & _VALUE_MASK
        if self.group.is_exact:
            return mine, ids_lib.to_integers(hashes).numpy()
        return mine, hashes | (slots[mine] << HASH_BITS)


class SavedTables:
    """Reads what `EmbeddingStore.save` wrote, as rows of the same or other groups.

    Attributes:
      directory: Directory of the checkpoint.
      manifest: Its manifest.

    Args:
      directory: Directory of the checkpoint.
      groups: The groups to fill.
      seed: Seed of slices that the checkpoint lacks.
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
        self.verify()
        self._seed = seed
        self._with_state = with_optimizer_state
        self._tables = {t.name: (t, group) for group in groups for t in group.tables}
        self._names = self._renamed(aliases or {})
        self._routes = [self._routes_of(saved) for saved in self.manifest["groups"]]

    def verify(self) -> None:
        """Compares the files with their checksums.

        Raises:
          DamagedError: If one differs.
        """
        checkpoint_files.verify(self.directory, self.manifest)

    def rows(self) -> Iterator[tuple[Group, Chunk]]:
        """Yields the rows of known tables, by chunk, in the columns of their group."""
        for saved, routes in zip(self.manifest["groups"], self._routes, strict=True):
            for chunk in checkpoint_files.read_rows(self.directory, saved):
                for route in routes:
                    converted = self._converted(chunk, route)
                    if len(converted.ids):
                        yield route.group, converted

    def removed(self) -> Iterator[tuple[Group, np.ndarray]]:
        """Yields ids of known tables that lost their row, if this is a delta."""
        for saved, routes in zip(self.manifest["groups"], self._routes, strict=True):
            for ids in checkpoint_files.read_removed(self.directory, saved):
                for route in routes:
                    yield route.group, route.renamed(ids)[1]

    @property
    def has_whole_counts(self) -> bool:
        """Whether `counts` are all, not only those that changed."""
        return self.manifest["format"] == checkpoint_files.FORMAT

    def counts(self) -> Iterator[tuple[Group, np.ndarray, np.ndarray]]:
        """Yields ids of known tables that wait for admission, and their counts."""
        for saved, routes in zip(self.manifest["groups"], self._routes, strict=True):
            for ids, counts in checkpoint_files.read_counts(self.directory, saved):
                for route in routes:
                    mine, new_ids = route.renamed(ids)
                    yield route.group, new_ids, counts[mine]

    def sketches(self) -> Iterator[tuple[Group, Part]]:
        """Yields parts of sketches; counts of tables whose slot changed are lost."""
        for saved, routes in zip(self.manifest["groups"], self._routes, strict=True):
            read = checkpoint_files.read_sketches(self.directory, saved)
            for entry, sketch in zip(saved["sketch_files"], read, strict=True):
                # Version 0.1.0 saved the sum of all shards.
                part = Part(entry.get("modulus", 1), entry.get("residue", 0), sketch)
                for route in routes:
                    yield route.group, part

    def counters(self) -> dict[str, dict[str, int]]:
        """Returns table name -> its counters at the time of the checkpoint."""
        return {
            self._names[saved["name"]]: saved["counters"]
            for saved in self.manifest["tables"]
            if saved["name"] in self._names
        }

    def num_rows(self) -> dict[str, int]:
        """Returns table name -> its rows at the time of the checkpoint."""
        return {name: counters["rows"] for name, counters in self.counters().items()}

    def new_tables(self) -> tuple[str, ...]:
        """Returns the tables that the checkpoint lacks."""
        known = set(self._names.values())
        return tuple(name for name in self._tables if name not in known)

    def dropped_tables(self) -> tuple[str, ...]:
        """Returns the tables of the checkpoint that are left out."""
        saved = [table["name"] for table in self.manifest["tables"]]
        return tuple(name for name in saved if name not in self._names)

    def _renamed(self, aliases: Mapping[str, str]) -> dict[str, str]:
        """Returns saved name -> name, for tables that still exist."""
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

    def _routes_of(self, saved: Mapping[str, Any]) -> list[_Route]:
        """Returns the routes of a saved group: one for each group its tables go to."""
        routes: dict[str, _Route] = {}
        for entry in saved["tables"]:
            if entry["name"] not in self._names:
                continue
            table, group = self._tables[self._names[entry["name"]]]
            was_exact = entry.get("large_integers") == "exact"
            self._check_exact(entry, table)
            if group.name not in routes:
                weights, state = self._copies(
                    saved["slices"], self._kinds(entry["name"]), table, group
                )
                new_slots = np.full(NUM_SLOTS, -1)
                routes[group.name] = _Route(group, new_slots, was_exact, weights, state)
            routes[group.name].new_slots[entry["slot"]] = table.slot
        return list(routes.values())

    def _kinds(self, table: str) -> Callable[[str], str]:
        """Returns a function from a table's saved update rules to today's names."""
        (saved,) = (t for t in self.manifest["tables"] if t["name"] == table)
        if "optimizers" in saved:
            return lambda kind: kind
        return optimizer_spec.from_release_0_1

    def _check_exact(self, saved: Mapping[str, Any], table: TableSpec) -> None:
        """Raises ValueError if the table's ids cannot be derived from the saved ids."""
        is_exact = table.large_integers == "exact"
        # Before tables had this field, they hashed large integers.
        before = saved.get("large_integers", "hash")
        if before == "hash" and is_exact:
            raise ValueError(
                f"Checkpoint {self.directory} holds table `{table.name}`, of which "
                "some ids may be hashes of integers outside of [0, 2^48), so that the "
                "integers are not known. Received: large_integers='exact'. Leave it "
                "out, and such integers are hashed as before, or start without this "
                "checkpoint."
            )
        if before == "exact" and not is_exact:
            raise ValueError(
                f"Checkpoint {self.directory} holds table `{table.name}` with ids of "
                f"64 bits. Received: large_integers={table.large_integers!r}. Set "
                "`large_integers: exact`."
            )

    def _copies(
        self,
        saved: Sequence[Mapping[str, Any]],
        kind_of: Callable[[str], str],
        table: TableSpec,
        group: Group,
    ) -> tuple[_Copies, _Copies]:
        by_name = {part["name"]: part for part in saved}
        weights, state = [], []
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
            weights.append(
                (_columns(old["start"], part.dim), _columns(part.start, part.dim))
            )
            if not self._with_state:
                continue
            kind = kind_of(old["optimizer"])
            if kind != part.kind and optimizers.have_like_state(kind, part.kind):
                logging.warning(
                    "Table `%s`, slice `%s`, was trained by the optimizer %r and goes "
                    "on by %r, with the same state. Give its optimizer that name to "
                    "go on as before.",
                    table.name,
                    part.name,
                    kind,
                    part.kind,
                )
            elif kind != part.kind:
                raise ValueError(
                    f"Checkpoint {self.directory} holds table `{table.name}`, slice "
                    f"`{part.name}`, with optimizer={kind!r}; the spec "
                    f"says {part.kind!r}. Restore without optimizer state to start it "
                    "anew."
                )
            size = sum(part.state_dims)
            state.append(
                (_columns(old["state_start"], size), _columns(part.state_start, size))
            )
        return tuple(weights), tuple(state)

    def _converted(self, chunk: Chunk, route: _Route) -> Chunk:
        mine, ids = route.renamed(chunk.ids)
        weights = np.empty([len(ids), route.group.dim], np.float32)
        state = np.empty([len(ids), route.group.state_dim], np.float32)
        if not route.is_whole():
            weights, state = _initial(route.group, ids, self._seed)
        for values, saved, copies in (
            (weights, chunk.weights[mine], route.weights),
            (state, chunk.state[mine], route.state),
        ):
            for old, new in copies:
                values[:, new] = saved[:, old]
        # A row without a saved stamp counts as updated at the checkpoint.
        stamps = {
            name: chunk.stamps[name][mine]
            if name in chunk.stamps
            else np.full(len(ids), self.manifest[name] or 0)
            for name in STAMPS
        }
        return Chunk(ids, weights, state, stamps)


def _initial(group: Group, ids: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    weights, state = row_update.initial_rows(
        group, tf.constant(ids), group_kind.slice_keys(group, seed)
    )
    return np.array(weights), np.array(state)


def _columns(start: int, size: int) -> slice:
    return slice(start, start + size)
