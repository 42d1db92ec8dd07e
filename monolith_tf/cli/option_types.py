"""Command-line options that commands share, and types, checked when they are parsed."""

import argparse
import contextlib
import ipaddress
import math
from collections.abc import Callable

from monolith_tf.distribute import task

MOST_SECS = 1e9
"""More than thirty years; every timer still accepts it."""
_MOST = 2**31 - 1


def add_config(parser: argparse.ArgumentParser, nargs: str | None = None) -> None:
    """Adds CONFIG, and the overrides of its values."""
    parser.add_argument("config", nargs=nargs, metavar="CONFIG", help="a YAML file")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="replaces a value of CONFIG"
    )


def whole(least: int, most: int = _MOST) -> Callable[[str], int]:
    """Returns the type of an option that takes a whole number within bounds."""

    def read(text: str) -> int:
        value = _number(text, int)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least} to {most}. Received: {text}"
            )
        return int(value)

    return read


port = whole(0, 65535)
"""The type of a port to listen on; 0 picks a free one."""


def above_zero(text: str) -> float:
    """Reads a finite number above 0."""
    value = _number(text, float)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0. Received: {text}")
    return value


def seconds(text: str) -> float:
    """Reads a time above 0."""
    return _seconds(text, is_right=lambda value: value > 0, least="above 0")


def seconds_or_none(text: str) -> float:
    """Reads a time, which may be 0."""
    return _seconds(text, is_right=lambda value: value >= 0, least="at least 0")


def address(text: str) -> str:
    """Reads the address of a server, HOST:PORT."""
    if not task.is_address(text):
        raise argparse.ArgumentTypeError(
            "must be HOST:PORT, such as localhost:8500, with a port from 1 to 65535. "
            f"Received: {text}"
        )
    return text


def host(text: str) -> str:
    """Reads an address of this machine, without a port."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.IPv6Address(text.removeprefix("[").removesuffix("]")))
    if not task.is_address(f"{text}:1"):
        raise argparse.ArgumentTypeError(
            "must be a name or an address of this machine, without a port. "
            f"Received: {text}"
        )
    return text


def _seconds(text: str, *, is_right: Callable[[float], bool], least: str) -> float:
    value = _number(text, float)
    if not (is_right(value) and value <= MOST_SECS):  # Also false for NaN.
        raise argparse.ArgumentTypeError(
            f"must be a number of seconds, {least} and at most {MOST_SECS:.0f}. "
            f"Received: {text}"
        )
    return value


def _number(text: str, kind: Callable[[str], float]) -> float:
    try:
        return kind(text)
    except ValueError:
        return math.nan
