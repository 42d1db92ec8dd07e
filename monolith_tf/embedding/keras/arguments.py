"""Converts the initializers and row optimizers of Keras users to specs."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import pydantic
import tf_keras

from monolith_tf.embedding import initializer_spec
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.initializer_spec import InitializerSpec
from monolith_tf.embedding.initializer_spec import NormalSpec
from monolith_tf.embedding.initializer_spec import TruncatedNormalSpec
from monolith_tf.embedding.initializer_spec import UniformSpec
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.optimizers import specs as optimizer_spec
from monolith_tf.embedding.optimizers.specs import RowOptimizerSpec
from monolith_tf.types import Identifier
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_MARK = "optimizer_names"
NAMES_OF_KERAS = {_MARK: "keras"}
"""Marks a layer's config in which Keras' names mean Keras' optimizers."""

_SCHEDULE_HINT = (
    'A schedule is written {"name": "adagrad", "learning_rate": {"name": "cosine", '
    '"learning_rate": 0.1, "decay_steps": 1000}}.'
)


def of_every_layer(layer: tf_keras.layers.Layer) -> JsonDict:
    """Returns arguments that every Keras layer takes but Keras does not save."""
    regularizer = layer.activity_regularizer
    if regularizer is None:
        return {}
    return {"activity_regularizer": tf_keras.regularizers.serialize(regularizer)}


def row_optimizer(value: object) -> RowOptimizerSpec:
    """Returns the spec for a name, a mapping or a spec.

    Raises:
      ValueError: If there is no such optimizer.
    """
    return _validated(
        "optimizer", RowOptimizerSpec, value, optimizer_spec.__name__, _SCHEDULE_HINT
    )


def with_names_of_keras(config: JsonMapping) -> JsonDict:
    """Returns the constructor's arguments from a layer's config.

    In a config written by 0.1.0, Keras' names mean the original Monolith's variants.
    """
    arguments = dict(config)
    if arguments.pop(_MARK, None) is None and _is_whole(config.get("optimizer")):
        optimizer = dict(config["optimizer"])
        optimizer["name"] = optimizer_spec.from_release_0_1(optimizer["name"])
        arguments["optimizer"] = optimizer
    return arguments


def _is_whole(optimizer: Identifier) -> bool:
    """Whether it is a mapping with all fields, which only a layer writes."""
    if not isinstance(optimizer, Mapping):
        return False
    known = {field.name for field in dataclasses.fields(row_optimizer(optimizer))}
    return known <= optimizer.keys()


def initializer(value: object) -> InitializerSpec:
    """Returns the spec for a name, a mapping, a spec or a Keras initializer.

    Raises:
      ValueError: If it cannot make one row at a time.
    """
    if isinstance(value, Mapping) and "class_name" in value:
        value = tf_keras.initializers.get(value)
    if isinstance(value, tf_keras.initializers.Initializer):
        value = _from_keras(value)
    hint = "Initial values that depend on the number of rows do not exist here."
    return _validated(
        "embeddings_initializer",
        InitializerSpec,
        value,
        initializer_spec.__name__,
        hint,
    )


def _validated(
    argument: str, union: object, value: object, module: str, hint: str
) -> Any:
    try:
        return _adapter(union).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"][1:])
        raise ValueError(
            f"`{argument}` must be a name, a mapping or a spec of `{module}`. "
            f"Received: {argument}={value!r}; {where}{first['msg']}. {hint}"
        ) from None


@functools.cache
def _adapter(union: Any) -> pydantic.TypeAdapter:
    # Making an adapter takes longer than everything else a layer does.
    return pydantic.TypeAdapter(union)


def _from_keras(value: Any) -> Any:
    """Converts initializers that ignore the shape; returns others unchanged."""
    keras = tf_keras.initializers
    kind = type(value)
    if kind is keras.Zeros:
        return ZerosSpec()
    if kind is keras.Ones:
        return ConstantSpec(value=1.0)
    config = value.get_config()
    config.pop("seed", None)
    if kind is keras.Constant:
        return ConstantSpec(value=float(config["value"]))
    specs = {
        keras.RandomUniform: UniformSpec,
        keras.RandomNormal: NormalSpec,
        keras.TruncatedNormal: TruncatedNormalSpec,
    }
    return specs[kind](**config) if kind in specs else value
