"""Layers' computations as functions of plain tensors."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "cin": "compressed_interaction",
        "cin_layer": "compressed_interaction",
        "cin_pooled_linear": "compressed_interaction",
        "exporting": "forms",
        "senet": "squeeze_excitation",
    },
)
