"""The types of specs: walked alongside a config's values, described for messages.

It holds no checks: `validate` asks it which type a value should have had.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import NamedTuple

from monolith_tf.config import errors


class Choice(NamedTuple):
    """The member of a union that a walk went through.

    Attributes:
      path: Where the union is.
      members: The union's members, without None.
      member: The member taken; None if the validator did not say which.
    """

    path: errors.Path
    members: tuple[Any, ...]
    member: Any


class Place(NamedTuple):
    """Where a walk ended.

    Attributes:
      path: The key path in the config, without the names of union members.
      kind: The type expected there; None if not known.
      owner: The dataclass that holds the last key, or None.
      choices: The unions on the way.
    """

    path: errors.Path
    kind: Any
    owner: type | None
    choices: tuple[Choice, ...]


def walk(kind: Any, location: Sequence[str | int], path: errors.Path = ()) -> Place:
    """Follows a validator's error location through a type.

    Args:
      kind: The type of the root.
      location: Keys, list indices, and names of union members in between.
      path: Where the root is in the config.
    """
    owner: type | None = None
    choices: list[Choice] = []
    kind = strip(kind)
    for position, part in enumerate(location):
        if isinstance(kind, tuple):  # A union, as its members.
            member = next((m for m in kind if part in _tags(m)), None)
            choices.append(Choice(path, kind, member))
            if member is not None:
                kind = strip(member)
                continue
            if position == len(location) - 1 and not isinstance(part, int):
                break
            kind = None
        fields = fields_of(kind)
        if fields is not None:
            owner = kind
            kind = strip(fields[part]) if part in fields else None
        elif _origin(kind) in (tuple, list) and isinstance(part, int):
            owner, kind = None, strip(typing.get_args(kind)[0])
        elif _is_mapping(kind):
            owner, kind = None, strip((*typing.get_args(kind), Any)[1])
        else:
            owner, kind = None, None
        path = (*path, part)
    return Place(path, kind, owner, tuple(choices))


def strip(kind: object) -> Any:
    """Returns a type without `Annotated` and `None`; for a union, its members."""
    while _origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if _origin(kind) not in (typing.Union, types.UnionType):
        return kind
    members: list[Any] = []
    for member in typing.get_args(kind):
        stripped = strip(member)
        members.extend(stripped if isinstance(stripped, tuple) else [member])
    members = [member for member in members if member is not type(None)]
    return strip(members[0]) if len(members) == 1 else tuple(members)


def fields_of(kind: object) -> dict[str, Any] | None:
    """Returns key -> type of a spec's fields, or None if `kind` is not a spec."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return None
    rename = getattr(kind, "__pydantic_config__", {}).get("alias_generator", str)
    hints = typing.get_type_hints(kind, include_extras=True)
    return {rename(field.name): hints[field.name] for field in dataclasses.fields(kind)}


def fits(value: object, kind: object) -> bool:
    """Returns whether a value, right or wrong, looks like it was meant as `kind`."""
    kind = strip(kind)
    if isinstance(kind, tuple):
        return any(fits(value, member) for member in kind)
    fields = fields_of(kind)
    if fields is not None:
        name = strip(fields["name"]) if "name" in fields else None
        names = typing.get_args(name) if _origin(name) is Literal else None
        if isinstance(value, str):  # The bare name of a spec chosen by name.
            return names is not None and value in names
        if not isinstance(value, dict):
            return False
        return names is None or "name" not in value or value["name"] in names
    if _origin(kind) in (tuple, list):
        return isinstance(value, list)
    if _is_mapping(kind):
        return isinstance(value, dict)
    return not isinstance(value, dict | list)


def describe(kind: Any) -> str:
    """Returns a description of a type, to follow `must be`."""
    kind = strip(kind)
    if isinstance(kind, tuple):
        words = list(dict.fromkeys(describe(member) for member in kind))
        if "a number" in words and "a whole number" in words:
            words.remove("a whole number")
        return " or ".join(words)
    if _origin(kind) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in typing.get_args(kind))
    if fields_of(kind) is not None or _is_mapping(kind):
        return "a mapping"
    if _origin(kind) in (tuple, list):
        return "a list"
    words_of = {
        int: "a whole number",
        float: "a number",
        bool: "`true` or `false`",
        str: "text",
    }
    return words_of.get(kind, "something else")


def choices(kind: object) -> list[Any]:
    """Returns the values of a `Literal`."""
    return list(typing.get_args(strip(kind)))


def show(value: object) -> str:
    """Returns a value's text for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _origin(kind: object) -> Any:
    return typing.get_origin(kind)


def _is_mapping(kind: object) -> bool:
    origin = _origin(kind) or kind
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _tags(member: object) -> set[Any]:
    """Returns the names of a union member that may be in the validator's locations."""
    member = strip(member)
    tags = {getattr(member, "__name__", None)}
    fields = fields_of(member)
    name = strip(fields["name"]) if fields and "name" in fields else None
    if _origin(name) is Literal:
        tags.update(typing.get_args(name))
    origin = _origin(member)
    if origin in (tuple, list):
        inner = ", ".join(
            "..." if arg is ... else getattr(arg, "__name__", str(arg))
            for arg in typing.get_args(member)
        )
        tags.add(f"{origin.__name__}[{inner}]")
    if origin is Literal:
        tags.add(f"literal[{','.join(map(repr, typing.get_args(member)))}]")
    return tags
