"""Plain values to specs, and the validator's errors to messages with lines.

These checks follow from the types of fields, in all specs alike: unknown and
missing keys, wrong types, wrong choices, numbers that are not finite. A check of what a
field means belongs in its spec; see `checks`.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import pydantic

from monolith_tf.config import document
from monolith_tf.config import errors
from monolith_tf.config import schema
from monolith_tf.config import spec_types


@functools.cache
def adapter(kind: type = schema.ExperimentConfig) -> pydantic.TypeAdapter[Any]:
    """Returns the validator of configs, or of another dataclass."""
    return pydantic.TypeAdapter(kind)


def validate(config: document.Document) -> schema.ExperimentConfig:
    """Returns the specs that a config describes.

    Args:
      config: Plain values.

    Raises:
      ConfigError: If the values do not fit the specs, or a spec rejects them.
    """
    return validate_as(schema.ExperimentConfig, config)


def validate_as(kind: type, config: document.Document, path: errors.Path = ()) -> Any:
    """Returns the spec that a part of a config describes.

    Args:
      kind: A dataclass.
      config: Plain values.
      path: Where the part is.

    Raises:
      ConfigError: If the values do not fit `kind`, or it rejects them.
    """
    try:
        spec = adapter(kind).validate_python(config.get(path))
    except pydantic.ValidationError as error:
        raise errors.ConfigError(_problems(error, kind, config, path)) from None
    plain = adapter(kind).dump_python(spec, mode="python", by_alias=True)
    problems = list(_bent(config, plain, path))
    if problems:
        raise errors.ConfigError(problems)
    return spec


def _problems(
    error: pydantic.ValidationError,
    kind: type,
    config: document.Document,
    path: errors.Path,
) -> list[errors.Problem]:
    found: list[errors.Problem] = []
    undecided: dict[errors.Path, spec_types.Choice] = {}
    for detail in error.errors(include_url=False):
        place = spec_types.walk(kind, detail["loc"], path)
        # A union reports an error per member; only the member that was meant counts.
        wrong = [choice for choice in place.choices if not _is_meant(choice, config)]
        if not wrong:
            found.append(_problem(detail, place, config))
        elif _meant(wrong[0], config) is None:
            undecided[wrong[0].path] = wrong[0]
    for where, choice in undecided.items():
        found.append(_wrong_type(where, choice.members, config))
    return found


def _is_meant(choice: spec_types.Choice, config: document.Document) -> bool:
    return choice.member is None or choice.member is _meant(choice, config)


def _meant(choice: spec_types.Choice, config: document.Document) -> Any:
    """Returns the union member that a value looks like, or None."""
    value = config.get(choice.path)
    fitting = [member for member in choice.members if spec_types.fits(value, member)]
    if len(fitting) > 1 and not isinstance(value, dict):
        return None
    if not fitting and isinstance(value, dict):  # Perhaps with a wrong `name`.
        fitting = [m for m in choice.members if spec_types.fields_of(m) is not None]
        fitting = fitting if len(fitting) == 1 else []
    return fitting[0] if fitting else None


def _problem(
    detail: Any, place: spec_types.Place, config: document.Document
) -> errors.Problem:
    path, kind, context = config.clip(place.path), detail["type"], detail.get("ctx", {})
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = spec_types.fields_of(place.owner) or {}
        message = "unknown key." + errors.did_you_mean(str(path[-1]), known)
        return config.problem(path, message)
    if kind in ("missing", "missing_argument"):
        owner = config.clip(place.path[:-1])
        return config.problem(owner, f"the key `{place.path[-1]}` is missing.")
    if kind == "union_tag_not_found":
        return config.problem(path, "the key `name` is missing.")
    if kind == "union_tag_invalid":
        tag, names = str(context["tag"]), context["expected_tags"]
        return _wrong_choice(path, tag, re.findall(r"'([^']*)'", names), config)
    if kind == "literal_error":
        return _wrong_choice(
            path, detail["input"], spec_types.choices(place.kind), config
        )
    if kind == "value_error":
        return _refused(path, str(context["error"]), config)
    if kind.startswith("int_from_float"):
        return _wrong_type(path, int, config)
    if kind.endswith(("_type", "_parsing")):
        return _wrong_type(path, place.kind, config)
    if kind.endswith("_parsing_size"):
        return config.problem(path, "must fit in 64 bits.")
    return config.problem(path, f"{detail['msg']}.")


def _wrong_type(
    path: errors.Path, kind: object, config: document.Document
) -> errors.Problem:
    value = config.get(path)
    message = (
        f"must be {spec_types.describe(kind)}. Received: {spec_types.show(value)}."
    )
    wants_text = spec_types.strip(kind) is str
    if wants_text and isinstance(value, bool | int | float):
        message += f' Write "{str(value).lower()}" in quotes.'
    elif spec_types.describe(kind) == "a list" and not isinstance(value, dict | list):
        message += " Put it in brackets, `[...]`."
    return config.problem(path, message)


def _wrong_choice(
    path: errors.Path, value: object, names: list[Any], config: document.Document
) -> errors.Problem:
    listed = ", ".join(f"`{name}`" for name in names)
    message = f"must be one of {listed}. Received: {spec_types.show(value)}."
    near = errors.did_you_mean(str(value), [str(name) for name in names])
    if near.startswith(" Did"):
        message += near
    given = config.get(path)
    if isinstance(given, dict) and "name" in given:
        path = (*path, "name")
    return config.problem(path, message)


def _refused(
    path: errors.Path, message: str, config: document.Document
) -> errors.Problem:
    """Returns a spec's own error, at the line of the first key in its message."""
    name = re.match(r"`(\w+)`", message)
    given = config.get(path)
    if name and isinstance(given, dict) and name[1] in given:
        path = (*path, name[1])
    return config.problem(path, message)


def _bent(
    config: document.Document, plain: object, path: errors.Path
) -> Iterator[errors.Problem]:
    """Yields wrong values that the validator let pass.

    Args:
      config: The config.
      plain: The validated value at `path`, as plain values.
      path: Where the value is.
    """
    given = config.get(path)
    if isinstance(given, dict) and isinstance(plain, dict):
        for key in given:
            if key in plain:
                yield from _bent(config, plain[key], (*path, key))
    elif isinstance(given, list) and isinstance(plain, list | tuple):
        for index in range(min(len(given), len(plain))):
            yield from _bent(config, plain[index], (*path, index))
    elif isinstance(plain, bool):
        return
    elif isinstance(plain, int | float):
        if isinstance(given, bool):
            kind = float if isinstance(plain, float) else int
            yield _wrong_type(path, kind, config)
        elif not math.isfinite(plain):
            yield config.problem(path, f"must be finite. Received: {plain}.")
        elif isinstance(plain, int) and not -(2**63) <= plain < 2**63:
            yield config.problem(path, "must fit in 64 bits.")
