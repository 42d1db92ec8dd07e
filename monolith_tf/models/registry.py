"""Creates models from their specs."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import pydantic

from monolith_tf import imports
from monolith_tf.models import base
from monolith_tf.models import spec as spec_lib
from monolith_tf.types import JsonMapping


def create(spec: spec_lib.ModelSpec) -> base.Model:
    """Returns the model that `spec` names or assembles.

    Raises:
      ValueError: If the model does not exist or rejects its parameters; the message
        names the key under `model`.
    """
    if spec.blocks:
        from monolith_tf.models import assembled

        return assembled.Assembled(spec)
    if spec.name is not None:
        if spec.name not in spec_lib.BUILT_IN:
            known = ", ".join(sorted(spec_lib.BUILT_IN))
            raise ValueError(
                f"`model.name`: there is no model {spec.name!r}. Known: {known}. "
                "For your own model, set `class: package.module:Class`."
            )
        class_ = imports.load_name(spec_lib.BUILT_IN[spec.name], "model.name")
    else:
        class_ = imports.load_name(spec.class_ or "", "model.class")
    if not (isinstance(class_, type) and issubclass(class_, base.Model)):
        raise ValueError(
            f"`model.class` must be a subclass of `monolith_tf.Model`. "
            f"Received: {spec.class_}."
        )
    # Subclasses take their `Params`; the base class takes Keras' arguments.
    make: Callable[[Any], base.Model] = class_
    return make(_params(class_, spec.params))


def _params(class_: type[base.Model], params: JsonMapping) -> Any:
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
