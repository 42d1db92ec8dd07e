"""The choice between the forms in which one result can be computed."""

from collections.abc import Callable
from typing import Any


def check(fused: bool | str) -> bool | str:
    """Returns `fused` if it is a known value; raises `ValueError` otherwise."""
    if fused is not True and fused is not False and fused != "auto":
        raise ValueError(
            f"`fused` must be 'auto', True or False. Received: fused={fused!r}."
        )
    return fused


def select(fused: bool | str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that computes a result.

    Args:
      fused: "auto", True or False. No fused form exists yet, so that every value
        selects the plain one.
      plain: The plain form, of ordinary TensorFlow operations.
    """
    check(fused)
    return plain
