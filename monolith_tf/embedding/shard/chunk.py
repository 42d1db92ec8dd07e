"""Some rows of a group, in memory, without TensorFlow."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Chunk:
    """Some rows of a group.

    Attributes:
      ids: Feature ids, `[n]`, int64.
      weights: `[n, dim]`, float32.
      state: Optimizer state, `[n, state_dim]`, float32.
      stamps: Stamp name -> when each row was last updated, `[n]`, int64.
    """

    ids: np.ndarray
    weights: np.ndarray
    state: np.ndarray
    stamps: dict[str, np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        """Weights and optimizer state side by side."""
        return np.concatenate([self.weights, self.state], axis=1)

    def take(self, rows: np.ndarray | slice) -> "Chunk":
        """Returns the rows of a slice, or those where a mask, `[n]`, is true."""
        stamps = {name: stamp[rows] for name, stamp in self.stamps.items()}
        return Chunk(self.ids[rows], self.weights[rows], self.state[rows], stamps)
