"""YAML nodes to plain values, and their lines."""

import re
from typing import Any

import yaml

from monolith_tf.config import errors
from monolith_tf.types import JsonDict

_MAX_VALUES = 100_000
_MAX_DEPTH = 50


class Loader(yaml.SafeLoader):
    """Reads YAML 1.2 scalars, since those of YAML 1.1 surprise.

    `1e-3` is a number, only `true` and `false` are booleans, and `no`, `0123` and
    `2024-01-01` are strings.
    """

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (filled below, as PyYAML wants)


_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (
        "int",
        r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)|0o[0-7]+|0x[0-9a-fA-F]+",
        "-+0123456789",
    ),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
)
_LEADING_ZERO = r"(?![-+]?0[0-9])"


def add_resolvers(kind: type) -> None:
    """Sets which plain scalars a PyYAML loader or dumper does not read as strings."""
    for tag, pattern, first in _RESOLVERS:
        if tag == "float":
            pattern = _LEADING_ZERO + f"(?:{pattern})"
        letters = [letter if letter != "\0" else "" for letter in first]
        kind.add_implicit_resolver(  # type: ignore[attr-defined]
            f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), letters
        )


add_resolvers(Loader)


def compose(text: str, source: str) -> yaml.Node | None:
    """Returns the root of a YAML document; None if it is empty.

    Raises:
      ConfigError: If `text` is not YAML.
    """
    try:
        return yaml.compose(text, Loader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be read"
        if r"'\t'" in what:
            what = "a tab is used as indentation; indent with spaces"
        elif "but found another document" in what:
            what = "a config is one YAML document; remove the `---` between documents"
        elif what.endswith("but got '['"):
            what = "put names with brackets, such as `tower[0]`, in quotes"
        elif error.context and error.problem:
            what = f"{error.problem} {error.context}"
        line = None if at is None else at.line + 1
        problem = f"The config is not YAML: {what}."
    except yaml.YAMLError as error:
        line = None
        problem = f"The config is not YAML: {' '.join(str(error).split())}."
    except RecursionError:
        line = None
        problem = f"The config is nested more than {_MAX_DEPTH} deep."
    raise errors.ConfigError(
        [errors.Problem(errors.Mark(source, line), (), problem)]
    ) from None


class Builder:
    """Turns YAML nodes into values, and notes lines and problems."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.marks: dict[errors.Path, errors.Mark] = {}
        self.problems: list[errors.Problem] = []
        self._count = 0

    def build(self, node: yaml.Node, path: errors.Path) -> Any:
        """Returns the value of a node at `path`."""
        self.marks.setdefault(path, self._mark(node))
        self._count += 1
        if self._count > _MAX_VALUES or len(path) > _MAX_DEPTH:
            limit = (
                f"has more than {_MAX_VALUES} values"
                if self._count > _MAX_VALUES
                else f"is nested more than {_MAX_DEPTH} deep"
            )
            problem = errors.Problem(
                self._mark(node), (), f"The config {limit}, counting aliases in full."
            )
            raise errors.ConfigError([problem])
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            return [
                self.build(item, (*path, index))
                for index, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._complain(node, path, f"the tag `{node.tag}` is not known. Remove it.")
        return None

    def _mapping(self, node: yaml.MappingNode, path: errors.Path) -> JsonDict:
        result: JsonDict = {}
        lines: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, path, "a key must be a plain word.")
                continue
            if key_node.tag == "tag:yaml.org,2002:merge":
                is_list = isinstance(value_node, yaml.SequenceNode)
                merged.extend(value_node.value if is_list else [value_node])
                continue
            key = key_node.value
            if key in lines:
                self._complain(
                    key_node,
                    (*path, key),
                    f"duplicate key, first given on line {lines[key]}.",
                )
                continue
            lines[key] = key_node.start_mark.line + 1
            self.marks[(*path, key)] = self._mark(key_node)
            result[key] = self.build(value_node, (*path, key))
        for source in merged:
            if not isinstance(source, yaml.MappingNode):
                self._complain(source, path, "`<<` needs a mapping or a list of them.")
                continue
            extra = Builder(self.source)
            extra._count = self._count
            values = extra.build(source, path)
            self._count = extra._count
            self.problems.extend(extra.problems)
            for key in values:
                if key not in result:
                    result[key] = values[key]
                    here = (*path, key)
                    inherited = {
                        at: mark
                        for at, mark in extra.marks.items()
                        if at[: len(here)] == here
                    }
                    self.marks.update(inherited)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: errors.Path) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = node.value
        try:
            if kind in ("str", "merge"):
                return text
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text, 0)
            if kind == "float":
                return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except (KeyError, ValueError):
            self._complain(node, path, f"`{text[:40]}` is not of type `{kind}`.")
            return None
        self._complain(node, path, f"the tag `{node.tag}` is not known. Remove it.")
        return None

    def _mark(self, node: yaml.Node) -> errors.Mark:
        return errors.Mark(self.source, node.start_mark.line + 1)

    def _complain(self, node: yaml.Node, path: errors.Path, message: str) -> None:
        self.problems.append(errors.Problem(self._mark(node), path, message))
