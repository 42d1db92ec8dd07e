"""The results of layers that search for widths of embeddings."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import runtime_checkable


@runtime_checkable
class SearchingLayer(Protocol):
    """A layer that searches, such as `layers.NASGatingLayer` or `layers.iRazor`.

    Attributes:
      name: The layer's name.
      built: Whether it has its weights.
      widths: Number of columns of each feature before the search.
    """

    name: str
    built: bool
    widths: Sequence[int]

    def selected_sizes(self) -> Mapping[str, int] | Sequence[int]:
        """Returns how many columns of each feature the search keeps so far."""

    def summary_line(self) -> str:
        """Returns the same as a line for the log."""

    def write_summaries(self, step: int) -> None:
        """Writes details with `tf.summary`."""


def searching_layers(model: Any) -> list[SearchingLayer]:
    """Returns the search layers that a model uses."""
    # A layer that was never called has no widths yet.
    return [
        layer
        for layer in model.submodules
        if getattr(layer, "built", False) and isinstance(layer, SearchingLayer)
    ]


def describe(model: object) -> dict[str, dict[str, dict[str, int]]]:
    """Returns the results of searches: layer -> feature -> `kept` and `width`.

    If a layer has no names of its features, their numbers are used.
    """
    found = {}
    for layer in searching_layers(model):
        sizes = layer.selected_sizes()
        named = sizes.items() if isinstance(sizes, Mapping) else enumerate(sizes)
        found[layer.name] = {
            str(feature): {"kept": int(kept), "width": int(width)}
            for (feature, kept), width in zip(named, layer.widths, strict=True)
        }
    return found
