"""One layer as a process of the benchmark sees it."""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
from layer_sides.sizes import Sizes


@dataclasses.dataclass(frozen=True)
class Case:
    """How to make a layer, call it, and give it our layer's weights.

    Attributes:
      make: Returns the layer.
      inputs: Kind of its inputs; see `sizes.make`.
      call: Calls it on a nest of tensors; the second argument says whether in training.
      adapt: Turns the inputs' arrays into what it takes.
      load: Sets its weights, once it is built, from ours in their order; None for a
        layer without weights, or one that computes something else.
      same: Whether it computes the same function as ours.
      remark: What is different about it.
    """

    make: Callable[[Sizes], Any]
    inputs: str
    call: Callable[[Any, Any, bool], Any] = lambda layer, x, training: layer(x)
    adapt: Callable[[Any], Any] = lambda x: x
    load: Callable[[Any, Sequence[np.ndarray]], None] | None = None
    same: bool = True
    remark: str = ""


def with_training(layer: Any, x: Any, training: bool) -> Any:
    """Calls a layer that is told whether it trains."""
    return layer(x, training=training)
