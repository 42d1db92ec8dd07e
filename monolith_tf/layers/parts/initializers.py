"""Initializers, a separate one for every weight.

An unseeded Keras initializer object repeats its numbers when it is called twice on one
shape, so two weights that share one would start equal.
"""

from typing import Any

import tf_keras


def get(identifier: Any, default: Any = "glorot_uniform") -> Any:
    """Returns an initializer.

    Args:
      identifier: A name, a config dict, a class, an instance or None.
      default: What None means.
    """
    return tf_keras.initializers.get(default if identifier is None else identifier)


def clone(initializer: Any, index: int = 0) -> Any:
    """Returns a copy of `initializer` for the weight `index` of a layer.

    Args:
      initializer: What `get` returned.
      index: Index of the weight in the layer; added to an integer seed, so that weights
        of one shape differ and the whole layer is reproducible.
    """
    if not hasattr(initializer, "get_config"):
        return initializer
    config = dict(initializer.get_config())
    if isinstance(config.get("seed"), int):
        config["seed"] += index
    return type(initializer).from_config(config)


def serialize(initializer: Any) -> Any:
    """Returns the initializer as a config value; None stays None."""
    if initializer is None:
        return None
    return tf_keras.initializers.serialize(initializer)
