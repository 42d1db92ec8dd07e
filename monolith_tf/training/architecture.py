"""What a model's layers have found that search for widths of embeddings."""

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
        """Returns how many columns of each feature the search has chosen so far."""

    def summary_line(self) -> str:
        """Returns the same as a line for the log."""

    def write_summaries(self, step: int) -> None:
        """Writes more about it with `tf.summary`."""


def searching_layers(model: Any) -> list[SearchingLayer]:
    """Returns the layers of a model that search, those that it uses."""
    # A layer that was never called has no widths to report yet.
    return [
        layer
        for layer in model.submodules
        if getattr(layer, "built", False) and isinstance(layer, SearchingLayer)
    ]


def describe(model: Any) -> dict[str, dict[str, dict[str, int]]]:
    """Returns what the searches have found: layer -> feature -> `kept` and `width`.

    A layer that gives its features no names has their numbers.
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
