"""Configs to YAML, as written to `<model_dir>/config.yaml`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from monolith_tf.config import schema
from monolith_tf.config import spec_types
from monolith_tf.config import yaml_reader


class _Dumper(yaml.SafeDumper):
    """Quotes each string that a YAML reader may not read as a string."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indents lists below their key."""
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        """Writes equal values in full, without aliases."""
        del data
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Only this style escapes characters that YAML reads as line breaks.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)
# In addition to those of YAML 1.1 in the base class.
yaml_reader.add_resolvers(_Dumper)


def dump_config(config: schema.ExperimentConfig) -> str:
    """Returns a config as YAML, including defaults.

    Values that are None or empty, and are so by default, are left out. Reading the text
    returns an equal config.
    """
    return yaml.dump(
        to_plain(config),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=88,
    )


def to_plain(value: object) -> Any:
    """Returns a spec as dictionaries, lists and scalars, for YAML."""
    if dataclasses.is_dataclass(value):
        keys = spec_types.fields_of(type(value)) or {}
        plain = {}
        for key, field in zip(keys, dataclasses.fields(value), strict=True):
            item = getattr(value, field.name)
            if item in (None, (), {}) and item == _default(field):
                continue
            plain[key] = to_plain(item)
        name = {"name": plain.pop("name")} if "name" in plain else {}
        return name | plain
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
