"""Initializers, one of its own for every weight.

An unseeded Keras initializer object repeats its numbers when it is called twice on one
shape, so two weights that share one would start as twins.
"""

from typing import Any

import tf_keras


def get(identifier: Any, default: Any = "glorot_uniform") -> Any:
    """Returns an initializer.

    Args:
      identifier: A name, a config dict, a class, an instance or None.
      default: What None stands for.
    """
    return tf_keras.initializers.get(default if identifier is None else identifier)


def clone(initializer: Any, index: int = 0) -> Any:
    """Returns a copy of `initializer` for the weight `index` of a layer.

    Args:
      initializer: What `get` returned.
      index: Place of the weight among the layer's; added to an integer seed, so that
        weights of one shape differ and the whole layer can be repeated.
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
