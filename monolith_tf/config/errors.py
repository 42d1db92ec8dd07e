"""Errors in a config and their places."""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indices that lead to a value."""

Complaints: TypeAlias = Iterator[tuple[Path, str]]
"""What checks yield: the path of a wrong value, and the message."""

COMMAND_LINE = "command line"
"""The source of values given by overrides."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """Where a value was given.

    Attributes:
      source: The file, or `COMMAND_LINE`.
      line: Line in the file from 1, or None.
    """

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One error in a config.

    Attributes:
      mark: Where it is.
      path: The key path; empty for the whole config.
      message: What is wrong, and what to type instead.
    """

    mark: Mark
    path: Path
    message: str

    def __str__(self) -> str:
        path = f"`{path_text(self.path)}`: " if self.path else ""
        return f"{self.mark}: {path}{self.message.removeprefix(path)}"


class ConfigError(ValueError):
    """A config with errors.

    Attributes:
      problems: All errors, in file order.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        def order(problem: Problem) -> tuple[bool, int]:
            return problem.mark.source == COMMAND_LINE, problem.mark.line or 0

        self.problems: Sequence[Problem] = sorted(dict.fromkeys(problems), key=order)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def path_text(path: Path) -> str:
    """Returns a path as in an override, such as `tables[1].dim`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean ...?`, or else the known names, to end a message."""
    known = list(known)
    plain = {re.sub(r"[^a-z0-9]", "", other.lower()): other for other in known}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        key = re.sub(r"[^a-z0-9]", "", name.lower())
        near = [plain[m] for m in difflib.get_close_matches(key, plain, 1, 0.6)]
    if near:
        return f" Did you mean `{near[0]}`?"
    if not known:
        return ""
    listed = ", ".join(f"`{other}`" for other in known[:30])
    return f" Known: {listed}{', ...' if len(known) > 30 else ''}."
