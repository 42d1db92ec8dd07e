"""The command line that benchmarks share."""

import argparse
import dataclasses
from typing import Any

from sides import report


def parser(
    text: str | None, rounds: int, write: str | None = ""
) -> argparse.ArgumentParser:
    """Returns a parser with the options `--rounds`, `--json` and perhaps `--write`.

    Args:
      text: The benchmark's docstring.
      rounds: Default of `--rounds`.
      write: Help of `--write`; None omits the option.
    """
    made = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    made.add_argument("--rounds", type=int, default=rounds)
    if write is not None:
        made.add_argument("--write", action="store_true", help=write)
    report.add_json(made)
    return made


def add_fields(parser: argparse.ArgumentParser, cls: type, but: str = "") -> None:
    """Adds an option for each field of a dataclass, except the field `but`."""
    for field in dataclasses.fields(cls):
        if field.name != but:
            name = f"--{field.name}"
            parser.add_argument(name, type=field.type, default=field.default)


def fields(arguments: argparse.Namespace, cls: type, but: str = "") -> dict[str, Any]:
    """Returns the values of the options of `add_fields`."""
    names = [field.name for field in dataclasses.fields(cls) if field.name != but]
    return {name: getattr(arguments, name) for name in names}
