"""Activations by name, config, function or layer, and back to a config."""

import json
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers import activation_layers
from monolith_tf.types import Identifier
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping
from monolith_tf.types import Tensor

_LAYERS: dict[str, type] = {
    "elu": tf_keras.layers.ELU,
    "exponential": activation_layers.Exponential,
    "gelu": activation_layers.Gelu,
    "hardsigmoid": activation_layers.HardSigmoid,
    "leakyrelu": tf_keras.layers.LeakyReLU,
    "linear": activation_layers.Linear,
    "prelu": tf_keras.layers.PReLU,
    "relu": tf_keras.layers.ReLU,
    "selu": activation_layers.Selu,
    "sigmoid": activation_layers.Sigmoid,
    "sigmoid2": activation_layers.Sigmoid2,
    "softmax": tf_keras.layers.Softmax,
    "softplus": activation_layers.Softplus,
    "softsign": activation_layers.Softsign,
    "swish": activation_layers.Swish,
    "tanh": activation_layers.Tanh,
    "thresholdedrelu": tf_keras.layers.ThresholdedReLU,
}
_ALIASES = {"hard_sigmoid": "hardsigmoid", "silu": "swish"}
_KERAS_LEAKY_RELU = {"leaky_relu": {"alpha": 0.2}}
"""The function of this name; the class `LeakyReLU`, "leakyrelu", has a slope of .3."""
_KERAS = tf_keras.activations
_FUNCTIONS: dict[Callable[[Tensor], Tensor], str] = {
    _KERAS.elu: "elu",
    _KERAS.exponential: "exponential",
    _KERAS.gelu: "gelu",
    _KERAS.hard_sigmoid: "hardsigmoid",
    _KERAS.linear: "linear",
    _KERAS.relu: "relu",
    _KERAS.selu: "selu",
    _KERAS.sigmoid: "sigmoid",
    _KERAS.softmax: "softmax",
    _KERAS.softplus: "softplus",
    _KERAS.softsign: "softsign",
    _KERAS.swish: "swish",
    _KERAS.tanh: "tanh",
    tf.exp: "exponential",
    tf.identity: "linear",
    tf.nn.elu: "elu",
    tf.nn.gelu: "gelu",
    tf.nn.relu: "relu",
    tf.nn.selu: "selu",
    tf.nn.sigmoid: "sigmoid",
    tf.nn.silu: "swish",
    tf.nn.softmax: "softmax",
    tf.nn.softplus: "softplus",
    tf.nn.softsign: "softsign",
    tf.nn.tanh: "tanh",
}
_NOT_PARAMETERS = ("name", "trainable", "dtype", "batch_input_shape")


def get(identifier: Identifier, **kwargs: Any) -> Any:
    """Returns an activation that can be called on a tensor.

    Args:
      identifier: None; a name in any letter case; a config dict or its JSON text; a
        layer class; a layer, which is copied, so that a learned slope is not shared; a
        function of `tf_keras.activations` or `tf.nn`; any other callable.
      **kwargs: Arguments of the layer that is made, such as `name` and `dtype`.

    Returns:
      None for None, a layer if the identifier has one, else the callable.

    Raises:
      ValueError: If a name is unknown.
      TypeError: If the identifier is none of these.

    Example:
      >>> get("ReLU")(tf.constant([-1.0, 2.0])).numpy()
      array([0., 2.], dtype=float32)
    """
    if identifier is None:
        return None
    if isinstance(identifier, str):
        if identifier.lstrip().startswith("{"):
            return deserialize(json.loads(identifier), **kwargs)
        return _from_name(identifier, kwargs)
    if isinstance(identifier, Mapping):
        return deserialize(identifier, **kwargs)
    if isinstance(identifier, type) and issubclass(identifier, tf_keras.layers.Layer):
        return identifier(**kwargs)
    if isinstance(identifier, tf_keras.layers.Layer):
        return type(identifier).from_config(identifier.get_config() | kwargs)
    if isinstance(identifier, Hashable) and identifier in _FUNCTIONS:
        return _LAYERS[_FUNCTIONS[identifier]](**kwargs)
    if callable(identifier):
        return identifier
    raise TypeError(
        "`activation` must be a name, a config, a layer or a callable. "
        f"Received: activation={identifier!r}."
    )


def canonical_name(activation: Identifier) -> str | None:
    """Returns the name of an activation for `get`, or None if it has none."""
    for name, cls in _LAYERS.items():
        if type(activation) is cls:
            return name
    return None


def serialize(activation: Identifier) -> JsonDict | None:
    """Converts an activation from `get` to a dict of plain values.

    Args:
      activation: A layer, a callable or None.

    Returns:
      `{"name": ..., <parameter>: ...}`, or None for None.

    Raises:
      ValueError: If a function is not registered with Keras, so it cannot be found by
        name.
    """
    if activation is None:
        return None
    name = canonical_name(activation)
    if name is not None:
        config = activation.get_config()
        return {"name": name} | {
            key: _plain(value)
            for key, value in config.items()
            if key not in _NOT_PARAMETERS
        }
    registered = tf_keras.utils.get_registered_name(
        type(activation)
        if isinstance(activation, tf_keras.layers.Layer)
        else activation
    )
    known = tf_keras.utils.get_registered_object(registered) is not None
    if isinstance(activation, tf_keras.layers.Layer) or known:
        keras_object = tf_keras.utils.serialize_keras_object(activation)
        return {"name": registered, "keras_object": keras_object}
    if getattr(_KERAS, str(registered), None) is activation:
        return {"name": registered}
    raise ValueError(
        "`activation` cannot be written to a config. Received: "
        f"activation={activation!r}. Decorate the function with "
        "`tf_keras.utils.register_keras_serializable()`, or use a name."
    )


def deserialize(config: Mapping[str, Any], **kwargs: Any) -> Any:
    """Returns the activation of a config made by `serialize` or by Keras.

    Args:
      config: A dict with `name`, or Keras' own with `class_name` and `config`.
      **kwargs: Arguments of the layer, as for `get`.
    """
    if "class_name" in config:
        return get(tf_keras.utils.deserialize_keras_object(dict(config)), **kwargs)
    if "keras_object" in config:
        keras_object = dict(config["keras_object"])
        return get(tf_keras.utils.deserialize_keras_object(keras_object), **kwargs)
    if "name" not in config:
        raise ValueError(
            f"`activation` config needs a `name`. Received: activation={dict(config)}."
        )
    parameters = {key: value for key, value in config.items() if key != "name"}
    return _from_name(config["name"], parameters | kwargs)


def _plain(value: object) -> Any:
    """Converts numbers that Keras keeps as arrays, which JSON does not support."""
    return value.item() if isinstance(value, (np.ndarray, np.generic)) else value


def _from_name(name: str, kwargs: JsonMapping) -> Any:
    """Returns a new layer of this package or Keras, or a registered function."""
    lower = name.strip().lower()
    lower = _ALIASES.get(lower, lower)
    if lower in _KERAS_LEAKY_RELU:
        kwargs = _KERAS_LEAKY_RELU[lower] | dict(kwargs)
        lower = "leakyrelu"
    if lower in _LAYERS:
        return _LAYERS[lower](**kwargs)
    found: Callable[..., Tensor] | None = tf_keras.utils.get_registered_object(name)
    if found is None and lower in dir(_KERAS):
        found = getattr(_KERAS, lower)
    if found is None or lower in ("get", "serialize", "deserialize"):
        raise ValueError(
            f"`activation` must be one of {', '.join(sorted(_LAYERS))}, or registered "
            f"with Keras. Received: activation={name!r}."
        )
    return get(found, **kwargs)
