"""Lets Keras find our classes by name before their modules are imported."""

import functools
import importlib
import importlib.abc
import importlib.machinery
import pathlib
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_KERAS = "tf_keras"

_CLASSES = {
    "AUC": "metrics.keras",
    "Calibration": "metrics.keras",
    "Embedding": "embedding.keras.layer",
    "NormalizedEntropy": "metrics.keras",
    "SharedEmbedding": "embedding.keras.shared",
}
# A registered class: its decorators, then its name.
_REGISTERED = re.compile(r"^@\S*register.*\n(?:@.*\n)*class (\w+)", re.MULTILINE)


@functools.cache
def layers() -> dict[str, str]:
    """Returns the classes that files in `layers` register: name -> module.

    Reads the files, in about a millisecond: an import would load TensorFlow.
    """
    files = sorted(pathlib.Path(__file__).with_name("layers").glob("*.py"))
    return {
        name: path.stem
        for path in files
        for name in _REGISTERED.findall(path.read_text(encoding="utf-8"))
    }


def classes() -> dict[str, str]:
    """Returns all: registered name, without `monolith_tf>` -> defining module."""
    return _CLASSES | {name: f"layers.{module}" for name, module in layers().items()}


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
    for name, module in classes().items():
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
