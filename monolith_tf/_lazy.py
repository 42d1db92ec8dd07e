"""Package attributes that are imported at their first use (PEP 562)."""

import importlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any


def attach(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` for a lazy package.

    Args:
      package: The package's `__name__`.
      names: Public name -> module, relative to the package, that defines it; a name
        mapped to an empty string is itself a sub-module.

    Returns:
      The three values to assign in the package's `__init__`.
    """

    def getattr_(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not names[name]:
            return importlib.import_module(f"{package}.{name}")
        value = getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        importlib.import_module(package).__dict__[name] = value
        return value

    return getattr_, lambda: sorted(names), sorted(names)
