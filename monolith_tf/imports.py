"""Imports of what a config names as `package.module:Name`."""

import importlib
import os
import re
import sys
from typing import Any

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_name(text: str) -> bool:
    """Returns whether a text has the form `package.module:Name`."""
    return _NAME.fullmatch(text) is not None


def load_name(path: str, key: str) -> Any:
    """Imports what a config names as `package.module:Name`.

    The current directory is searched too, as `python -m` does.

    Args:
      path: What to import.
      key: The key of the config, for the error message.

    Raises:
      ValueError: If the module does not exist, or has no such name.
    """
    module_name, _, name = path.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that exists may import one that does not: that is another error.
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(
                f"`{key}`: there is no module `{module_name}`. Received: {path}. "
                f"Searched sys.path and {here}."
            ) from None
        raise
    if not hasattr(module, name):
        raise ValueError(
            f"`{key}`: module `{module_name}` has no `{name}`. Received: {path}."
        )
    return getattr(module, name)
