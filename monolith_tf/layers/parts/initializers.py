"""Initializers, a separate one for every weight.

An unseeded Keras initializer object repeats its numbers when it is called twice on one
shape, so two weights that share one would start equal.
"""

import tf_keras

from monolith_tf.types import Identifier
from monolith_tf.types import JsonDict


def get(
    identifier: Identifier, default: Identifier = "glorot_uniform"
) -> tf_keras.initializers.Initializer:
    """Returns an initializer.

    Args:
      identifier: A name, a config dict, a class, an instance or None.
      default: What None means.
    """
    return tf_keras.initializers.get(default if identifier is None else identifier)


def clone(initializer: Identifier, index: int = 0) -> tf_keras.initializers.Initializer:
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


def serialize(initializer: Identifier) -> JsonDict | None:
    """Returns the initializer as a config value; None stays None."""
    if initializer is None:
        return None
    return tf_keras.initializers.serialize(initializer)
