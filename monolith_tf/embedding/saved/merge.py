"""Merges a full set of rows and later changes, layer by layer.

In memory are the ids of all layers but the oldest, 8 bytes each, and up to three times
that while they are sorted: what changed since the full set, not the set.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Protocol
from typing import TypeVar

import numpy as np

from monolith_tf.embedding.shard.chunk import Chunk


class Named(Protocol):
    """A group of tables."""

    @property
    def name(self) -> str:
        """Its name."""


_Group = TypeVar("_Group", bound=Named)
_Of = TypeVar("_Of", bound=Named, covariant=True)


class Layer(Protocol[_Of]):
    """The rows of one directory, or what changed since the one before it."""

    @property
    def has_whole_counts(self) -> bool:
        """Whether `counts` are all, not only those that changed."""

    def rows(self) -> Iterator[tuple[_Of, Chunk]]:
        """Yields rows, by chunk; each id once."""

    def removed(self) -> Iterator[tuple[_Of, np.ndarray]]:
        """Yields ids that lost their row; some may have one again."""

    def counts(self) -> Iterator[tuple[_Of, np.ndarray, np.ndarray]]:
        """Yields ids that wait for admission, and their counts."""


def rows(layers: Sequence[Layer[_Group]]) -> Iterator[tuple[_Group, Chunk]]:
    """Yields the newest row of each id, by chunk.

    Args:
      layers: Oldest first.
    """
    # From the newest layer to the oldest: each id is yielded once, by the newest layer
    # that holds its row, unless a newer layer removed it.
    # Group -> sorted ids that newer layers hold or removed.
    settled: dict[str, np.ndarray] = {}
    for layer in reversed(layers):
        found = {name: [ids] for name, ids in settled.items()}
        for group, ids in layer.removed():
            found.setdefault(group.name, []).append(ids)
        for group, chunk in layer.rows():
            if group.name in settled:
                chunk = chunk.take(~_is_in(chunk.ids, settled[group.name]))
            if layer is not layers[0]:
                found.setdefault(group.name, []).append(chunk.ids)
            if len(chunk.ids):
                yield group, chunk
        settled = {k: np.unique(np.concatenate(ids)) for k, ids in found.items()}


def counts(
    layers: Sequence[Layer[_Group]],
) -> Iterator[tuple[_Group, np.ndarray, np.ndarray]]:
    """Yields ids that wait for admission, and their counts, by chunk.

    Args:
      layers: Oldest first.
    """
    # Group -> ids that newer layers count, or that have or had a row in them: they
    # were admitted, and what an older layer counted is used up.
    settled: dict[str, list[np.ndarray]] = {}
    for layer in reversed(layers):
        newer = {k: np.unique(np.concatenate(ids)) for k, ids in settled.items()}
        for group, ids, numbers in layer.counts():
            if group.name in newer:
                is_old = _is_in(ids, newer[group.name])
                ids, numbers = ids[~is_old], numbers[~is_old]
            yield group, ids, numbers
        if layer.has_whole_counts:
            return
        for group, ids, _ in layer.counts():
            settled.setdefault(group.name, []).append(ids)
        for group, ids in layer.removed():
            settled.setdefault(group.name, []).append(ids)
        for group, chunk in layer.rows():
            settled.setdefault(group.name, []).append(chunk.ids)


def _is_in(ids: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Returns which ids are in a sorted array."""
    if not len(ordered):
        return np.zeros(len(ids), bool)
    places = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
    return ordered[places] == ids
