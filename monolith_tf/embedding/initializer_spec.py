"""Initial values of embedding rows as data; does not import TensorFlow."""

import dataclasses
import math
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Literal
from typing import TypeAlias

import pydantic


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Initializer:
    """Checks that all numbers of an initializer are finite."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not math.isfinite(value):
                raise ValueError(
                    f"`{field.name}` must be finite. Received: {field.name}={value}."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZerosSpec(_Initializer):
    """All values are 0."""

    name: Literal["zeros"] = "zeros"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantSpec(_Initializer):
    """All values are the same.

    Attributes:
      value: The value.
    """

    name: Literal["constant"] = "constant"
    value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformSpec(_Initializer):
    """Uniform in `[minval, maxval)`, rounded to float32.

    Attributes:
      minval: Lower end.
      maxval: Upper end, not below `minval`.
    """

    name: Literal["uniform"] = "uniform"
    minval: float = -0.05
    maxval: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maxval < self.minval:
            raise ValueError(
                "`maxval` must not be below `minval`. "
                f"Received: minval={self.minval}, maxval={self.maxval}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormalSpec(_Initializer):
    """Normal distribution.

    Attributes:
      mean: Its mean.
      stddev: Its standard deviation, not negative.
    """

    name: Literal["normal"] = "normal"
    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_stddev(self.stddev)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruncatedNormalSpec(_Initializer):
    """Normal distribution, truncated at two standard deviations from the mean.

    Attributes:
      mean: Its mean.
      stddev: Standard deviation before truncation, not negative; the values drawn have
        0.88 times this standard deviation.
    """

    name: Literal["truncated_normal"] = "truncated_normal"
    mean: float = 0.0
    stddev: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_stddev(self.stddev)


def _check_stddev(stddev: float) -> None:
    if stddev < 0:
        raise ValueError(f"`stddev` must not be negative. Received: stddev={stddev}.")


def _from_name(value: object) -> Any:
    return {"name": value} if isinstance(value, str) else value


InitializerSpec: TypeAlias = Annotated[
    ZerosSpec | ConstantSpec | UniformSpec | NormalSpec | TruncatedNormalSpec,
    pydantic.Field(discriminator="name"),
    pydantic.BeforeValidator(_from_name),
]
"""Any initializer; a config may give just the name, `initializer: zeros`."""

_adapter: pydantic.TypeAdapter[InitializerSpec] = pydantic.TypeAdapter(InitializerSpec)


def initializer(name: str, **parameters: object) -> InitializerSpec:
    """Returns the spec of the initializer `name`.

    Args:
      name: "uniform", "zeros", or any other `name` of the specs.
      **parameters: Fields of that spec.

    Raises:
      pydantic.ValidationError: A `ValueError`, if the name or a field is unknown.

    Example:
      >>> initializer("normal", stddev=0.01).mean
      0.0
    """
    return _adapter.validate_python({"name": name, **parameters})
