"""From a model's spec to the model."""

import dataclasses
import importlib
import os
import sys
import types
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import pydantic

from monolith_tf.models import base
from monolith_tf.models import spec as spec_lib


def create(spec: spec_lib.ModelSpec) -> base.Model:
    """Returns the model that `spec` names or assembles.

    Raises:
      ValueError: If there is no such model, or its parameters do not fit; the message
        names the key below `model`.
    """
    if spec.blocks:
        from monolith_tf.models import assembled

        return assembled.Assembled(spec)
    if spec.name is not None:
        if spec.name not in spec_lib.BUILT_IN:
            known = ", ".join(sorted(spec_lib.BUILT_IN))
            raise ValueError(
                f"`model.name`: there is no model {spec.name!r}. Known: {known}. "
                "An own model is named by `class: package.module:Class`."
            )
        class_ = load_name(spec_lib.BUILT_IN[spec.name], "model.name")
    else:
        class_ = load_name(spec.class_ or "", "model.class")
    if not (isinstance(class_, type) and issubclass(class_, base.Model)):
        raise ValueError(
            f"`model.class` must be a subclass of `monolith_tf.Model`. "
            f"Received: {spec.class_}."
        )
    # Subclasses take their parameters; the base class takes what Keras takes.
    make: Callable[[Any], base.Model] = class_
    return make(_params(class_, spec.params))


def load_name(path: str, key: str) -> Any:
    """Imports what a config names as `package.module:Name`.

    The current directory is searched too, as `python -m` does.

    Args:
      path: What to import.
      key: Where the config says so, for the error message.

    Raises:
      ValueError: If there is no such module, or no such name in it.
    """
    module_name, _, name = path.partition(":")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ValueError(
                f"`{key}`: there is no module `{module_name}`. Received: {path}. It is "
                f"looked for on sys.path and in {here}."
            ) from None
        raise
    if not hasattr(module, name):
        raise ValueError(
            f"`{key}`: module `{module_name}` has no `{name}`. Received: {path}."
        )
    return getattr(module, name)


def _params(class_: type[base.Model], params: Mapping[str, Any]) -> Any:
    if class_.Params is None:
        return types.SimpleNamespace(**params)
    known = [field.name for field in dataclasses.fields(class_.Params)]
    for key in params:
        if key not in known:
            raise ValueError(
                f"`model.params.{key}`: unknown key. Known: {', '.join(known)}."
            )
    try:
        return pydantic.TypeAdapter(class_.Params).validate_python(dict(params))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in ("model", "params", *first["loc"]))
        raise ValueError(
            f"`{path}`: {first['msg']}. Received: {first['input']!r}."
        ) from None
