"""Tables and features of `SharedEmbedding`; does not import TensorFlow."""

import dataclasses
from typing import Any
from typing import Literal

_COMBINERS = (None, "sum", "mean", "sqrtn", "max")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedTable:
    """A table of `SharedEmbedding`.

    Attributes:
      name: The name that features use.
      output_dim: Values per row, at least 1.
      input_dim: Number of rows, at least 1: the table starts with a row for each
        integer from 0 on, and refuses other keys. None makes rows for new keys.
      embeddings_initializer: As in `Embedding`.
      embeddings_regularizer: A penalty on all rows if `input_dim` is set, otherwise on
        the distinct rows that a call reads for all features.
      mask_zero: Whether key 0 (or string "") is padding: combiners skip it, and
        features without a combiner mask it.
      optimizer: As in `Embedding`.
    """

    name: str
    output_dim: int
    input_dim: int | None = None
    embeddings_initializer: Any = "uniform"
    embeddings_regularizer: Any = None
    mask_zero: bool = False
    optimizer: Any = "monolith_adagrad"

    def __post_init__(self) -> None:
        if self.input_dim is not None and self.input_dim < 1:
            raise ValueError(
                f"`input_dim` must be at least 1. Received: name={self.name!r}, "
                f"input_dim={self.input_dim}. Leave it out where keys are not numbered."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedFeature:
    """A feature of `SharedEmbedding`.

    Attributes:
      table: Name of its table.
      combiner: How to combine the rows of an example's keys: "sum", "mean", "sqrtn"
        (the sum divided by the square root of their number) or "max"; None keeps all.
      max_len: Keys of an example beyond the first `max_len` are dropped; without a
        combiner, the rows of ragged keys are padded with zeros to this length.
    """

    table: str
    combiner: Literal["sum", "mean", "sqrtn", "max"] | None = None
    max_len: int | None = None

    def __post_init__(self) -> None:
        if self.combiner not in _COMBINERS:
            raise ValueError(
                f"`combiner` must be one of {list(_COMBINERS)}. "
                f"Received: combiner={self.combiner!r}."
            )
        if self.max_len is not None and self.max_len < 1:
            raise ValueError(
                f"`max_len` must be at least 1. Received: max_len={self.max_len}."
            )
