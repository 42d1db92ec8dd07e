"""The interface of a store of rows that a network uses."""

from collections.abc import Mapping
from typing import Any
from typing import Protocol

from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor


class RowStore(Protocol):
    """Finds and pools rows: an `EmbeddingStore`, or a `FrozenStore` of its rows.

    Each has its own type for what `lookup` returns; `combine` and `masks` take it.
    """

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        """The tables."""

    def lookup(
        self,
        ids: Mapping[str, Tensor],
        *,
        training: bool,
        step: Tensor | None = None,
        now_secs: Tensor | None = None,
    ) -> Any:
        """Finds the rows of a batch's ids."""

    def combine(self, pulled: Any, /) -> dict[str, dict[str, Tensor]]:
        """Returns the embeddings of every feature: feature -> slice name -> tensor."""

    def masks(self, pulled: Any, /) -> dict[str, Tensor]:
        """Returns for "first_n" features where ids are: `[batch, max_length]`, bool."""
