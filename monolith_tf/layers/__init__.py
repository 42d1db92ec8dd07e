"""Layers for recommender models, and all others of `tf_keras.layers`.

Names that this package does not define, such as `Flatten`, are those of
`tf_keras.layers`. `Dense`, `MLP` and `Dropout` are this package's own.
"""

from typing import Any

from monolith_tf import _keras_registry
from monolith_tf import _lazy

LAYERS = {
    name: module
    for name, module in sorted(_keras_registry.layers().items())
    if name != "BatchNormalization"  # Keras' with fixes, for our layers
}
"""Our layers -> the modules that define them."""

NAMES = LAYERS | {
    "DCNType": "dcn",
    "FFM": "group_int",
    "LayerParams": "parts.params",
    "MergeType": "parts.merge",
    "activations": "",
    "dynamic_rnn_with_attention": "rnn_with_attention",
    "functional": "",
    "merge_tensor_list": "parts.merge",
    "ncf": "",
    "params_of": "parts.params",
    "static_rnn_with_attention": "rnn_with_attention",
}
"""All our own names -> the modules that define them."""

_own, _, _own_names = _lazy.attach(__name__, NAMES)


def _keras_names() -> list[str]:
    import tf_keras

    return [name for name in dir(tf_keras.layers) if not name.startswith("_")]


def __getattr__(name: str) -> Any:
    if name in NAMES:
        return _own(name)
    if name == "__all__":
        return [*_own_names, *(n for n in _keras_names() if n not in NAMES)]
    if not name.startswith("_"):
        import tf_keras

        if hasattr(tf_keras.layers, name):
            return getattr(tf_keras.layers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_own_names, *(n for n in _keras_names() if n not in NAMES)]
