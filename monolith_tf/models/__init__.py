"""Models: the base class, registered models, and models assembled from a config."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "EstimatorSpec": "base",
        "Inputs": "base",
        "Mode": "base",
        "Model": "base",
        "Network": "network",
    },
)
