"""A layer's constructor arguments as an object with attributes to set."""

import copy
import difflib
import inspect
from collections.abc import Mapping
from typing import Any

_REQUIRED = object()


class LayerParams:
    """The arguments of one layer class, one attribute each.

    An attribute holds its argument's default until it is set. The layer's `name` is
    always included.

    Args:
      cls: A layer class.
      aliases: Alias of an argument -> its name.

    Example:
      >>> from monolith_tf import layers
      >>> params = layers.Dense.params()
      >>> params.units = 8
      >>> params.instantiate().units
      8
    """

    _cls: type
    _values: dict[str, Any]
    _aliases: Mapping[str, str]

    def __init__(self, cls: type, aliases: Mapping[str, str] | None = None) -> None:
        parameters = list(inspect.signature(cls).parameters.values())
        values = {
            p.name: _REQUIRED if p.default is p.empty else p.default
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        values.setdefault("name", None)
        object.__setattr__(self, "_cls", cls)
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_aliases", dict(aliases or {}))

    def __getattr__(self, name: str) -> Any:
        # `copy` and `pickle` look up attributes before `_values` exists.
        values = self.__dict__.get("_values", {})
        name = self.__dict__.get("_aliases", {}).get(name, name)
        if name not in values:
            raise AttributeError(self._unknown(name))
        return None if values[name] is _REQUIRED else values[name]

    def __setattr__(self, name: str, value: object) -> None:
        name = self._aliases.get(name, name)
        if name not in self._values:
            raise AttributeError(self._unknown(name))
        self._values[name] = value

    def __dir__(self) -> list[str]:
        return sorted([*self._values, "copy", "instantiate"])

    def copy(self) -> "LayerParams":
        """Returns an independent copy."""
        twin = LayerParams(self._cls, self._aliases)
        for name, value in self._values.items():
            if value is not _REQUIRED:
                setattr(twin, name, copy.deepcopy(value))
        return twin

    def instantiate(self) -> Any:
        """Creates the layer.

        Raises:
          ValueError: If a required argument was not set.
        """
        missing = [n for n, value in self._values.items() if value is _REQUIRED]
        if missing:
            raise ValueError(
                f"`{self._cls.__name__}` needs {', '.join(f'`{n}`' for n in missing)}. "
                "Set it before `instantiate()`."
            )
        return self._cls(**self._values)

    def _unknown(self, name: str) -> str:
        values = self.__dict__.get("_values", {})
        near = difflib.get_close_matches(name, values, n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        return f"`{self._cls.__name__}` has no argument `{name}`.{hint}"


def params_of(cls: type) -> LayerParams:
    """Returns the parameters of any layer class, including those of Keras.

    Args:
      cls: A layer class; for one of this package's own, `cls.params()` is the same.
    """
    return LayerParams(cls)
