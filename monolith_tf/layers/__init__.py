"""Layers for recommender models, and all others of `tf_keras.layers`.

Names that this package does not define, such as `Flatten`, are those of
`tf_keras.layers`. `Dense`, `MLP` and `Dropout` are this package's own.
"""

from typing import Any

from monolith_tf import _lazy

NAMES = {
    "AGRUCell": "agru_cell",
    "AddBias": "add_bias",
    "AllInt": "all_int",
    "AutoInt": "auto_int",
    "AvgPooling": "pooling",
    "BatchNorm": "batch_norm",
    "CAN": "can",
    "CDot": "cdot",
    "CIN": "cin",
    "DCN": "dcn",
    "DCNType": "dcn",
    "DIEN": "dien",
    "DIN": "din",
    "DMR_U2I": "dmr_u2i",
    "Dense": "dense",
    "DotInteraction": "dot_interaction",
    "Dropout": "dropout",
    "Exponential": "activation_layers",
    "FFM": "group_int",
    "FeatureCross": "feature_cross",
    "Gelu": "activation_layers",
    "GradNorm": "grad_norm",
    "GroupInt": "group_int",
    "HardSigmoid": "activation_layers",
    "LHUCTower": "lhuc_tower",
    "LayerNorm": "layer_norm",
    "LayerParams": "parts.params",
    "Linear": "activation_layers",
    "LogitCorrection": "logit_correction",
    "MLP": "mlp",
    "MMoE": "mmoe",
    "MaxPooling": "pooling",
    "MergeType": "parts.merge",
    "MixedNASLayer": "mixed_nas",
    "NASGatingLayer": "nas_gating",
    "SNR": "snr",
    "SeNet": "se_net",
    "Selu": "activation_layers",
    "Sigmoid": "activation_layers",
    "Sigmoid2": "activation_layers",
    "SimpleNasLayer": "simple_nas",
    "SimpleNasV2Layer": "simple_nas",
    "Softplus": "activation_layers",
    "Softsign": "activation_layers",
    "SumPooling": "pooling",
    "Swish": "activation_layers",
    "Tanh": "activation_layers",
    "activations": "",
    "dynamic_rnn_with_attention": "rnn_with_attention",
    "functional": "",
    "iRazor": "irazor",
    "merge_tensor_list": "parts.merge",
    "ncf": "",
    "params_of": "parts.params",
    "static_rnn_with_attention": "rnn_with_attention",
}
"""Our own names -> the modules that define them."""

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
