"""A registered model's parameters: the checks of `model.params`, heads and outputs."""

import types
import typing
from collections.abc import Sequence
from typing import Any

from monolith_tf.config import document
from monolith_tf.config import errors
from monolith_tf.config import schema
from monolith_tf.config import validate
from monolith_tf.models import params as params_lib

_PATH: errors.Path = ("model", "params")


def check(config: schema.ExperimentConfig) -> errors.Complaints:
    """Yields path and message of each wrong value in a registered model's `params`."""
    try:
        params = _read(config)
    except errors.ConfigError as error:
        yield from ((problem.path, problem.message) for problem in error.problems)
        return
    if params is None:
        return
    hints = typing.get_type_hints(type(params), include_extras=True)
    for name, kind in hints.items():
        if typing.get_origin(kind) is not typing.ClassVar:
            yield from _names(kind, getattr(params, name), (*_PATH, name), config)


def heads(config: schema.ExperimentConfig) -> Sequence[str]:
    """Returns the heads of the model; empty if only its class knows them."""
    if config.model.heads:
        return [head.name or head.label for head in config.model.heads]
    params = _right(config)
    return () if params is None else params.heads


def outputs(config: schema.ExperimentConfig) -> Sequence[str]:
    """Returns the outputs of the model's exports; empty if only its class knows."""
    params = _right(config)
    extra = () if params is None else params.extra_outputs
    return [*heads(config), *extra]


def _read(config: schema.ExperimentConfig) -> params_lib.Params | None:
    """Returns the parameters of a registered model; None for any other model."""
    class_ = params_lib.OF_MODEL.get(config.model.name or "")
    if class_ is None:
        return None
    data = {"model": {"params": _plain(config.model.params)}}
    params = validate.validate_as(class_, document.Document("", data, {}), _PATH)
    return typing.cast(params_lib.Params, params)


def _right(config: schema.ExperimentConfig) -> params_lib.Params | None:
    try:
        return _read(config)
    except errors.ConfigError:  # `check` reports it.
        return None


def _plain(value: object) -> Any:
    if isinstance(value, dict | types.MappingProxyType):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _names(
    kind: Any, value: Any, path: errors.Path, config: schema.ExperimentConfig
) -> errors.Complaints:
    """Checks the names in a value, whose type's annotations say what they refer to."""
    if isinstance(value, tuple):
        kinds = typing.get_args(kind)
        for index, item in enumerate(value):
            inner = kinds[0] if kinds[-1] is ... else kinds[index]
            yield from _names(inner, item, (*path, index), config)
        return
    for member in typing.get_args(kind) if _is_union(kind) else (kind,):
        what = getattr(member, "__metadata__", (None,))[0]
        if what is not None and value is not None:
            message = _missing(what, value, config)
            if message:
                yield path, message


def _is_union(kind: object) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _missing(what: str, name: str, config: schema.ExperimentConfig) -> str:
    """Returns the error message for a name, or ""."""
    if what == "slice":
        used = schema.features_of_tables(config)
        for table in schema.resolved_tables(config):
            slices = [piece.name for piece in table.row_slices()]
            if name not in slices and table.name in used:
                near = errors.did_you_mean(name, slices)
                return f"the table `{table.name}` has no slice `{name}`.{near}"
        return ""
    if what == "label":
        known = [label.name for label in config.labels]
        if name in known:
            return ""
        return f"there is no label `{name}`.{errors.did_you_mean(name, known)}"
    kinds = {feature.name: feature.kind for feature in config.features}
    if name not in kinds:
        return f"there is no feature `{name}`.{errors.did_you_mean(name, kinds)}"
    if what == "id feature" and kinds[name] == "dense":
        return f"must name a feature with ids. Received: `{name}`, which is dense."
    return ""
