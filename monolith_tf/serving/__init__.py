"""Serving exports for development, and sending row updates to servers."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ModelServer": "server",
        "Published": "publishing",
        "Publisher": "publishing",
        "ServingError": "errors",
        "Tls": "tls",
        "publish": "publishing",
    },
)
