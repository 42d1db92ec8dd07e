"""Which checkpoint the next delta continues, and when the next one is whole instead."""

from absl import logging

from monolith_tf.embedding.saved import layout
from monolith_tf.embedding.shard.marks import Mark
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_links

MAX_DELTAS = 200
"""Most deltas on top of a whole checkpoint; the next one is whole."""

MAX_BYTES = 1 << 26
"""The deltas may have as many bytes as the whole checkpoint, or this if it has less."""


class DeltaParent:
    """The last checkpoints of a run, of which the next one may hold the changes.

    Args:
      links: Reads which checkpoint continues which.
    """

    def __init__(self, links: checkpoint_links.Links) -> None:
        self._links = links
        self._is_used = False
        # Newest last: the checkpoint, and the mark of the store at it.
        self._saved: list[tuple[checkpoint_lib.Checkpoint, Mark]] = []

    def start(
        self, restored: checkpoint_lib.Checkpoint | None, store: EmbeddingStore
    ) -> None:
        """Notes the checkpoint from which the store was just restored, if any."""
        self._is_used = True
        self._saved = []
        if restored is None:
            return
        if layout.is_same(restored.manifest["embedding"], store.groups):
            self.saved(restored, store)
        else:
            logging.info(
                "Tables changed since %s: the next checkpoint is a whole one.",
                restored.path,
            )

    def saved(
        self, checkpoint: checkpoint_lib.Checkpoint, store: EmbeddingStore
    ) -> None:
        """Notes a checkpoint that was just written, while no steps run."""
        if not self._is_used:
            return
        last = self._saved[-1:]
        if last and last[0][0].path == checkpoint.path:
            self._saved.pop()  # It was written again.
        # One that is written again as a delta continues the one before it.
        self._saved = [*self._saved[-1:], (checkpoint, store.mark())]

    def of(self, name: str) -> tuple[checkpoint_lib.Checkpoint, Mark] | None:
        """Returns what a delta continues, with the store's mark there.

        Args:
          name: Name of the checkpoint to be written.

        Returns:
          None if it must be whole.
        """
        saved = self._saved
        if saved and saved[-1][0].path.name == name:
            # A delta is written again as a delta, a whole one as a whole one.
            saved = saved[:-1] if saved[-1][0].parent is not None else []
        if not saved:
            return None
        parent, mark = saved[-1]
        chain = self._links.chain(parent.path.name)
        if not chain or parent.sha256 not in chain[0].states or chain[-1].parent:
            logging.warning(
                "%s was removed or changed: the next checkpoint is a whole one.",
                parent.path,
            )
            return None
        deltas, base = chain[:-1], chain[-1]
        num_bytes = sum(delta.num_bytes for delta in deltas)
        if len(deltas) < MAX_DELTAS and num_bytes <= max(base.num_bytes, MAX_BYTES):
            return parent, mark
        logging.info(
            "There are %d deltas of %d bytes since %s: the next checkpoint is a whole "
            "one.",
            len(deltas),
            num_bytes,
            base.name,
        )
        return None
