"""The JSON schema of configs, with which editors complete and check them."""

import re

from monolith_tf.config import validate
from monolith_tf.types import JsonDict


def json_schema() -> JsonDict:
    """Returns the JSON schema (draft 2020-12) of a config file."""
    schema = validate.adapter().json_schema(by_alias=True, mode="validation")
    _accept_bare_names(schema)
    for spec in (schema, *schema["$defs"].values()):
        _describe(spec)
    table = dict(schema["$defs"]["TableSpec"])
    table["required"] = [key for key in table.get("required", []) if key != "name"]
    schema["$defs"]["DefaultTable"] = table
    default_table = schema["properties"]["default_table"]
    for choice in default_table["anyOf"]:
        if choice.get("$ref") == "#/$defs/TableSpec":
            choice["$ref"] = "#/$defs/DefaultTable"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _accept_bare_names(node: object) -> None:
    """Accepts a bare name in place of a spec that is chosen by name."""
    if isinstance(node, list):
        for item in node:
            _accept_bare_names(item)
    elif isinstance(node, dict):
        for item in list(node.values()):
            _accept_bare_names(item)
        names = node.get("discriminator", {}).get("mapping")
        if isinstance(names, dict) and "oneOf" in node:
            node["oneOf"] = [{"enum": sorted(names)}, *node["oneOf"]]


def _describe(spec: JsonDict) -> None:
    """Moves the description of each attribute from the docstring to the attribute."""
    text, _, attributes = spec.get("description", "").partition("\nAttributes:\n")
    spec["description"] = text.strip()
    for name, said in re.findall(r"^  (\w+): ((?:.|\n(?!  \w))*)", attributes, re.M):
        properties = spec.get("properties", {})
        key = name if name in properties else name.removesuffix("_")
        if key in properties:
            properties[key]["description"] = " ".join(said.split())
