"""The sizes of the benchmark's layers, and the inputs of all sides."""

import dataclasses
from typing import Any

import numpy as np

UNITS = (256, 128, 64)
CIN_MAPS = (32, 32)
DIN_UNITS = (64, 16)
RANK = 64
MIXED_RANK = 32
EXPERTS = 4


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of the inputs.

    Attributes:
      batch: Examples.
      features: Features of an example, and steps of a sequence.
      dim: Width of an embedding.
    """

    batch: int = 4096
    features: int = 26
    dim: int = 16

    @property
    def width(self) -> int:
        """Width of all embeddings, concatenated."""
        return self.features * self.dim


def make(kind: str, sizes: Sizes) -> Any:
    """Returns a nest of inputs, the same in every process.

    Args:
      kind: "stack" `[batch, features, dim]`; "flat" `[batch, width]`; "list" `features`
        tensors `[batch, dim]`; "halves" the first half of the features and the others,
        stacked; "target" a query `[batch, dim]` and a sequence `[batch, features,
        dim]`; "valid target" the same and the sequences' lengths `[batch, 1]`;
        "co-action" a stack and the two layers of parameters for it; "logits" logits and
        rates `[batch]`.
      sizes: Their sizes.
    """
    rng = np.random.default_rng(0)
    batch, features, dim = sizes.batch, sizes.features, sizes.dim

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=(batch, *shape)).astype("float32")

    if kind == "stack":
        return normal(features, dim)
    if kind == "flat":
        return normal(sizes.width)
    if kind == "list":
        return [normal(dim) for _ in range(features)]
    if kind == "halves":
        half = features // 2
        return [normal(half, dim), normal(features - half, dim)]
    if kind == "target":
        return [normal(dim), normal(features, dim)]
    if kind == "valid target":
        lengths = rng.integers(1, features + 1, [batch, 1]).astype("int32")
        return [normal(dim), normal(features, dim), lengths]
    if kind == "co-action":
        return [normal(features, dim), 0.1 * normal(2 * (dim * dim + dim))]
    if kind == "logits":
        return [normal(), np.full([batch], 0.5, "float32")]
    raise ValueError(f"There are no inputs of the kind {kind!r}.")
