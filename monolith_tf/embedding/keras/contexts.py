"""The context in which a Keras layer with a table is called."""

import tensorflow as tf
import tf_keras
from tensorflow.python.ops import control_flow_util
from tf_keras.src.engine import base_layer_utils

from monolith_tf.types import Training


def is_in_function() -> bool:
    """Whether a function is being traced, other than Keras' symbolic call."""
    return not tf.executing_eagerly() and not is_planned()


def is_planned() -> bool:
    """Whether Keras calls the layer symbolically, only to build the model."""
    in_plan: bool = base_layer_utils.is_in_keras_graph()
    return in_plan


def known_training(name: str, training: Training) -> bool | None:
    """Returns the `training` argument of a call; None if it was not passed.

    Args:
      name: Name of the layer in errors.
      training: The argument.

    Raises:
      ValueError: If its value is only known at run time.
    """
    value = tf.get_static_value(training) if tf.is_tensor(training) else training
    if value is None and training is not None:
        raise ValueError(
            f"`training` must be known when embedding `{name}` is traced. Received: "
            f"training={training}. Trace a function for each value."
        )
    return None if value is None else bool(value)


def is_half(layer: tf_keras.layers.Layer) -> bool:
    """Whether the layer's policy or the global policy computes in float16."""
    policies = (layer.dtype_policy, tf_keras.mixed_precision.global_policy())
    return any(policy.compute_dtype == "float16" for policy in policies)


def check_strategy(name: str) -> None:
    """Raises ValueError under a distribution strategy, except on one device."""
    strategy = tf.distribute.get_strategy()
    one_device = tf.distribute.OneDeviceStrategy
    if tf.distribute.has_strategy() and not isinstance(strategy, one_device):
        raise ValueError(
            f"Embedding `{name}` must be used in one process without a distribution "
            f"strategy. Received: {type(strategy).__name__}. Jobs on several machines "
            "are described by a config: see `monolith_tf.Estimator`."
        )


def check_graph(name: str) -> None:
    """Raises ValueError in a function that XLA compiles."""
    if tf.executing_eagerly():
        return
    graph = tf.compat.v1.get_default_graph()
    if control_flow_util.GraphOrParentsInXlaContext(graph):
        raise ValueError(
            f"Embedding `{name}` cannot be compiled by XLA, which has no hash tables. "
            "Received: a call under jit_compile=True. Compile the model with "
            "`jit_compile=False`; layers behind the embedding may be compiled by a "
            "`tf.function` of their own."
        )
