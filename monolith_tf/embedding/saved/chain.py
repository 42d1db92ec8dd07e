"""A checkpoint and the deltas since, read as one.

See `merge` for what a long chain costs.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.saved import merge
from monolith_tf.embedding.saved.read import SavedTables
from monolith_tf.embedding.shard.chunk import Chunk

_IDS_SHOWN = 3


class Chain:
    """Reads a checkpoint, and deltas on top of it, as rows of groups.

    Attributes:
      newest: The last of them, from which counts and counters are read.

    Args:
      directory: Directory of the checkpoint.
      groups: The groups to fill.
      seed: Seed of slices that the checkpoint lacks.
      deltas: Directories of the deltas since then, oldest first.
      aliases: Saved table name -> table name; by default they are the same.
      with_optimizer_state: Whether optimizer state is read too.

    Raises:
      ValueError: If one is damaged, does not follow the one before it, or does not
        fit the tables.
    """

    def __init__(
        self,
        directory: str,
        groups: Sequence[Group],
        *,
        seed: int,
        deltas: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        with_optimizer_state: bool = True,
    ) -> None:
        self._layers = [
            SavedTables(
                layer,
                groups,
                seed=seed,
                aliases=aliases,
                with_optimizer_state=with_optimizer_state,
            )
            for layer in (directory, *deltas)
        ]
        self.newest = self._layers[-1]
        if self._layers[0].manifest["since_step"] is not None:
            raise ValueError(
                "`directory` must hold a full checkpoint, not what changed since one. "
                f"Received: directory={directory!r}. Give it among `deltas`."
            )
        for before, delta in zip(self._layers, self._layers[1:], strict=False):
            since_step, step = delta.manifest["since_step"], before.manifest["step"]
            if since_step is None or step is None or since_step > step:
                raise ValueError(
                    "`deltas` must follow each other. Received: "
                    f"{delta.directory!r}, of since_step={since_step}, after "
                    f"{before.directory!r}, of step={step}."
                )
            _check_follows(before, delta)

    def verify(self) -> None:
        """Compares all files with their checksums.

        Raises:
          DamagedError: If one differs.
        """
        for layer in self._layers:
            layer.verify()

    def rows(self) -> Iterator[tuple[Group, Chunk]]:
        """Yields the newest row of each id, in the columns of its group, by chunk."""
        return merge.rows(self._layers)

    def counts(self) -> Iterator[tuple[Group, np.ndarray, np.ndarray]]:
        """Yields ids that wait for admission, and their counts, by chunk."""
        return merge.counts(self._layers)


def _check_follows(before: SavedTables, delta: SavedTables) -> None:
    """Raises ValueError if a delta follows another checkpoint, as of another run."""
    found, follows = before.manifest.get("id"), delta.manifest.get("follows")
    if found is None or follows is None:
        return  # Written before checkpoints had ids.
    if found not in follows:
        wanted = ", ".join(follows[-_IDS_SHOWN:]) or "none that has an id"
        raise ValueError(
            "`deltas` must be of the run that wrote, or was restored from, what they "
            f"follow. Received: {delta.directory!r}, which follows the checkpoint "
            f"{wanted}, after {before.directory!r}, which is {found}. Give the "
            "directories of one run."
        )
