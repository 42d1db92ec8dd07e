"""TensorFlow-native training of recommender models with sharded embeddings."""

from monolith_tf import _keras
from monolith_tf import _keras_registry
from monolith_tf import _lazy

_keras.use_keras_2()
_keras_registry.register()

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "Estimator": "experiment.estimator",
        "EstimatorSpec": "models.base",
        "Inputs": "models.base",
        "Mode": "models.base",
        "Model": "models.base",
        "data": "",
        "embedding": "",
        "features": "",
        "layers": "",
        "losses": "",
        "metrics": "",
        "models": "",
    },
)
