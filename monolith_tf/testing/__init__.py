"""Helpers for tests of layers, models and jobs; only tests import them."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "GoldenCase": "golden",
        "TestCase": "test_case",
        "battery": "",
        "golden": "",
        "golden_cases": "golden",
        "load_golden": "golden",
        "parameter_servers": "",
    },
)
