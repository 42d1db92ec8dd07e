"""A config as plain values, with their lines."""

import dataclasses
import re
from typing import Any

from monolith_tf.config import errors
from monolith_tf.config import yaml_reader

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclasses.dataclass
class Document:
    """A config as plain values.

    Attributes:
      source: The file's name, as the user gave it.
      data: Dictionaries, lists, strings, numbers, booleans and None.
      marks: Path -> where its value was given.
    """

    source: str
    data: Any
    marks: dict[errors.Path, errors.Mark]

    def mark(self, path: errors.Path) -> errors.Mark:
        """Returns where `path`, or else the value around it, was given."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks.get(path) or errors.Mark(self.source)

    def problem(self, path: errors.Path, message: str) -> errors.Problem:
        """Returns a problem at `path`."""
        return errors.Problem(self.mark(path), path, message)

    def get(self, path: errors.Path) -> Any:
        """Returns the value at `path`, or None if there is none."""
        value = self.data
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif (
                isinstance(value, list) and isinstance(part, int) and part < len(value)
            ):
                value = value[part]
            else:
                return None
        return value

    def clip(self, path: errors.Path, *, keys: bool = True) -> errors.Path:
        """Returns `path` as the config spells it; short forms lack inner parts.

        Args:
          path: A path in the long form.
          keys: Whether to also cut off keys that the config lacks, not just indices.
        """
        value = self.data
        result: errors.Path = ()
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif (
                isinstance(value, list) and isinstance(part, int) and part < len(value)
            ):
                value = value[part]
            elif isinstance(part, int) and value is not None:
                continue
            elif keys:
                break
            result = (*result, part)
        return result


def parse(text: str, source: str) -> Document:
    """Reads YAML.

    Args:
      text: One YAML document.
      source: The file's name, for messages.

    Raises:
      ConfigError: If it is not YAML, gives a key twice, or has a tag of an unknown
        type.
    """
    node = yaml_reader.compose(text, source)
    if node is None:
        raise errors.ConfigError(
            [errors.Problem(errors.Mark(source), (), "The config is empty.")]
        )
    builder = yaml_reader.Builder(source)
    try:
        data = builder.build(node, ())
    except RecursionError:
        message = "The config includes itself by an alias."
        raise errors.ConfigError(
            [errors.Problem(errors.Mark(source), (), message)]
        ) from None
    if builder.problems:
        raise errors.ConfigError(builder.problems)
    return Document(source, data, builder.marks)


def substitute(config: Document, variables: dict[str, str]) -> None:
    """Replaces `${name}` in all strings of a config.

    Args:
      config: The config, changed in place.
      variables: Name -> value.

    Raises:
      ConfigError: If a string has an unknown name.
    """
    problems = []

    def walk(value: object, path: errors.Path) -> Any:
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if not isinstance(value, str):
            return value
        for name in _VARIABLE.findall(value):
            if name not in variables:
                message = f"unknown variable `${{{name}}}`."
                known = [f"${{{other}}}" for other in variables]
                message += errors.did_you_mean(f"${{{name}}}", known)
                problems.append(config.problem(path, message))
        return _VARIABLE.sub(lambda match: variables.get(match[1], ""), value)

    config.data = walk(config.data, ())
    if problems:
        raise errors.ConfigError(problems)
