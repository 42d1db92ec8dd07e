"""Values given on the command line: `trainer.max_steps=200 tables[0].dim=8`."""

import re
from collections.abc import Sequence
from typing import Any

from monolith_tf.config import document
from monolith_tf.config import errors
from monolith_tf.types import JsonDict

_MARK = errors.Mark(errors.COMMAND_LINE)
_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def apply(config: document.Document, overrides: Sequence[str]) -> None:
    """Sets values in a config, in order.

    Args:
      config: The config, changed in place.
      overrides: Each `key.path=value`, the value in YAML; list entries are indexed, as
        in `tables[0].dim=8`.

    Raises:
      ConfigError: If an override has another form, or its path leads through a value
        that is neither a mapping nor a list.
    """
    problems: list[errors.Problem] = []
    for override in overrides:
        try:
            _apply_one(config, override)
        except errors.ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise errors.ConfigError(problems)


def parse_path(text: str) -> errors.Path:
    """Splits `a.b[0].c`.

    Raises:
      ValueError: If `text` is not a path.
    """
    parts: list[str | int] = []
    position = 0
    while position < len(text):
        match = _PART.match(text, position)
        if not match or (match[0].startswith(".") and not parts):
            raise ValueError(text)
        parts.append(match[1] if match[2] is None else int(match[2]))
        position = match.end()
        if text[position : position + 1] not in ("", ".", "["):
            raise ValueError(text)
    if not parts or isinstance(parts[0], int):
        raise ValueError(text)
    return tuple(parts)


def _apply_one(config: document.Document, override: str) -> None:
    path_text, equals, value_text = override.partition("=")
    try:
        path = parse_path(path_text.strip())
    except ValueError:
        equals = ""
    if not equals:
        raise _error(
            (),
            f"`{override}` must have the form `key.path=value`, such as "
            "`trainer.max_steps=200` or `tables[0].dim=8`.",
        )
    value = _parse_value(path, value_text)
    if not isinstance(config.data, dict):
        return  # The file itself is wrong; validation reports it.
    parent: Any = config.data
    for depth, part in enumerate(path):
        here = path[: depth + 1]
        if isinstance(part, int):
            _check_index(parent, part, here)
        if depth == len(path) - 1:
            _forget(config, path)
            parent[part] = value
            _remember(config, path, value)
            return
        child = parent[part] if isinstance(part, int) else parent.get(part)
        wants_list = isinstance(path[depth + 1], int)
        if not wants_list and not isinstance(child, dict):
            child = parent[part] = _as_mapping(child, here)
            config.marks.setdefault(here, _MARK)
        parent = child


def _check_index(parent: object, index: int, here: errors.Path) -> None:
    owner = errors.path_text(here[:-1])
    if not isinstance(parent, list):
        raise _error(here, f"`{owner}` is not a list in the config.")
    if index >= len(parent):
        count = "is empty" if not parent else f"has {len(parent)} entries, from 0"
        raise _error(here, f"there is no such entry: `{owner}` {count}.")


def _as_mapping(value: object, here: errors.Path) -> JsonDict:
    """Returns the mapping for a bare name, such as in `optimizer: adam`."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"name": value}
    kind = "a list" if isinstance(value, list) else f"`{value}`"
    raise _error(here, f"the config has {kind} here, which has no keys to override.")


def _parse_value(path: errors.Path, text: str) -> Any:
    if not text.strip():
        return None
    try:
        return document.parse(text, errors.COMMAND_LINE).data
    except errors.ConfigError as error:
        what = error.problems[0].message.replace("The config", "the value")
        raise _error(path, f"{what[0].lower()}{what[1:]} Received: `{text}`.") from None


def _forget(config: document.Document, path: errors.Path) -> None:
    for known in [known for known in config.marks if known[: len(path)] == path]:
        del config.marks[known]


def _remember(config: document.Document, path: errors.Path, value: object) -> None:
    config.marks[path] = _MARK
    if isinstance(value, dict):
        for key, item in value.items():
            _remember(config, (*path, key), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _remember(config, (*path, index), item)


def _error(path: errors.Path, message: str) -> errors.ConfigError:
    return errors.ConfigError([errors.Problem(_MARK, path, message)])
