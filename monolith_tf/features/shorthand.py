"""Short forms that config files may use, understood by pydantic without importing it.

`OneOrMany` accepts one value as a list of one; `FromName` accepts a string as a
dataclass with only a name. pydantic calls the hooks below when it reads a config or
makes its JSON schema; plain Python calls never do.
"""

from typing import Any


class OneOrMany:
    """Annotates a tuple field: a value that is not a list becomes a list of one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list | tuple) else [value],
            handler(source),
        )

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> Any:
        many = handler(core)
        return {"anyOf": [many["items"], many]}


class FromName:
    """Base of dataclasses with a field `name`: a string becomes `{name: string}`."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            lambda value: {"name": value} if isinstance(value, str) else value,
            handler(source),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        return {"anyOf": [{"type": "string"}, handler(core)]}
