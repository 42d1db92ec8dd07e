"""Exports for serving."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ExportError": "errors",
        "ExportSpec": "spec",
        "Origin": "saved_model",
        "export": "saved_model",
    },
)
