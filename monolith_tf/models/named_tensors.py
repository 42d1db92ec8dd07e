"""Mappings whose `KeyError` lists the known names."""

import difflib
from collections.abc import Mapping
from typing import Any

from monolith_tf.types import Tensor


class UnknownNameError(KeyError):
    """An unknown name; the message lists the known names."""

    def __str__(self) -> str:
        return str(self.args[0])


class NamedTensors(dict[str, Tensor]):
    """A dict whose error for a missing key lists its keys.

    Args:
      values: Name -> value.
      what: Its name in errors.
      if_empty: What errors say if it is empty.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor] | tuple[()] = (),
        *,
        what: str = "",
        if_empty: str = "It is empty.",
    ) -> None:
        super().__init__(values)
        self._what = what
        self._if_empty = if_empty

    def __missing__(self, name: str) -> Any:
        near = difflib.get_close_matches(str(name), self, n=1, cutoff=0.5)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        has = ", ".join(f"`{known}`" for known in self)
        has = f"It has {has}." if has else self._if_empty
        raise UnknownNameError(f"`{self._what}` has no `{name}`.{hint} {has}")
