"""Turns a config into a running job."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__, {"Estimator": "estimator", "Watcher": "watcher"}
)
