"""Lets Keras find our classes by name before their modules are imported."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_KERAS = "tf_keras"

CLASSES = {
    "AGRUCell": "layers.agru_cell",
    "AUC": "metrics.keras",
    "AddBias": "layers.add_bias",
    "AllInt": "layers.all_int",
    "AutoInt": "layers.auto_int",
    "AvgPooling": "layers.pooling",
    "BatchNorm": "layers.batch_norm",
    "BatchNormalization": "layers.batch_normalization",
    "CAN": "layers.can",
    "CDot": "layers.cdot",
    "CIN": "layers.cin",
    "Calibration": "metrics.keras",
    "DCN": "layers.dcn",
    "DIEN": "layers.dien",
    "DIN": "layers.din",
    "DMR_U2I": "layers.dmr_u2i",
    "Dense": "layers.dense",
    "DotInteraction": "layers.dot_interaction",
    "Dropout": "layers.dropout",
    "Embedding": "embedding.keras.layer",
    "Exponential": "layers.activation_layers",
    "FeatureCross": "layers.feature_cross",
    "Gelu": "layers.activation_layers",
    "GradNorm": "layers.grad_norm",
    "GroupInt": "layers.group_int",
    "HardSigmoid": "layers.activation_layers",
    "LHUCTower": "layers.lhuc_tower",
    "LayerNorm": "layers.layer_norm",
    "Linear": "layers.activation_layers",
    "LogitCorrection": "layers.logit_correction",
    "MLP": "layers.mlp",
    "MMoE": "layers.mmoe",
    "MaxPooling": "layers.pooling",
    "MixedNASLayer": "layers.mixed_nas",
    "NASGatingLayer": "layers.nas_gating",
    "NormalizedEntropy": "metrics.keras",
    "SNR": "layers.snr",
    "SeNet": "layers.se_net",
    "Selu": "layers.activation_layers",
    "SharedEmbedding": "embedding.keras.shared",
    "Sigmoid": "layers.activation_layers",
    "Sigmoid2": "layers.activation_layers",
    "SimpleNasLayer": "layers.simple_nas",
    "SimpleNasV2Layer": "layers.simple_nas",
    "Softplus": "layers.activation_layers",
    "Softsign": "layers.activation_layers",
    "SumPooling": "layers.pooling",
    "Swish": "layers.activation_layers",
    "Tanh": "layers.activation_layers",
    "iRazor": "layers.irazor",
}
"""Registered name, without `monolith_tf>` -> the module that defines the class."""


def register() -> None:
    """Registers our classes with Keras: now, or when Keras is imported.

    A saved model names its classes, but our packages import theirs at first use. So the
    registry gets a stand-in for each class that imports it when a model needs it.
    """
    if _KERAS in sys.modules:
        _fill(sys.modules[_KERAS])
    else:
        sys.meta_path.insert(0, _Finder())


def _fill(tf_keras: ModuleType) -> None:
    registry = tf_keras.utils.get_custom_objects()
    for name, module in CLASSES.items():
        registry.setdefault(f"monolith_tf>{name}", _stand_in(name, module))


def _stand_in(name: str, module: str) -> type:
    class StandIn:
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            real = getattr(importlib.import_module(f"monolith_tf.{module}"), name)
            return real.from_config(config)

    return StandIn


class _Finder(importlib.abc.MetaPathFinder):
    """Finds Keras as Python does, and fills its registry after the import."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _KERAS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _fill(module)
