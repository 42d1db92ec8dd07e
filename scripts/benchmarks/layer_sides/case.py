"""One layer's case in a process of the benchmark."""

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
      inputs: Kind of its inputs, see `sizes.make`; or a function that returns them.
      call: Calls it on a nest of tensors; the second argument says whether in training.
      adapt: Converts the inputs' arrays to its form.
      load: Sets the built layer's weights from ours, in their order; None for a layer
        without weights, or with another function.
      same: Whether it computes the same function as ours.
      remark: How it differs.
    """

    make: Callable[[Sizes], Any]
    inputs: str | Callable[[Sizes], Any]
    call: Callable[[Any, Any, bool], Any] = lambda layer, x, training: layer(x)
    adapt: Callable[[Any], Any] = lambda x: x
    load: Callable[[Any, Sequence[np.ndarray]], None] | None = None
    same: bool = True
    remark: str = ""


def with_training(layer: Any, x: Any, training: bool) -> Any:
    """Calls a layer that takes `training`."""
    return layer(x, training=training)
