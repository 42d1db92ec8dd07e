"""Features and labels as data: which columns to read and how to encode them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated
from typing import Any
from typing import Literal

from monolith_tf.features.shorthand import FromName
from monolith_tf.features.shorthand import OneOrMany

_ARGUMENTS = {
    "log1p": (),
    "zscore": ("mean", "std"),
    "bucketize": ("boundaries",),
    "clip": ("min", "max"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformSpec(FromName):
    """One step from raw numbers to model inputs.

    Steps compute in float64 if the column holds integers, and else in float32; the last
    result is float32.

        log1p:     y = sign(x) * log(1 + |x|)
        zscore:    y = (x - mean) / std
        clip:      y = min(max(x, min), max)
        bucketize: y = number of boundaries <= x

    In a config file, a step without arguments can be written as just its name.

    Attributes:
      name: One of the forms above. The model receives the bucket of a dense feature as
        a one-hot vector; the bucket of an id feature is its id.
      boundaries: Increasing numbers; only for `bucketize`.
      min: Lower limit; only for `clip`. None sets no limit.
      max: Upper limit; only for `clip`. None sets no limit.
      mean: Only for `zscore`; None computes mean and deviation from the training data,
        after the preceding steps.
      std: Standard deviation, positive; set together with `mean`.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: Literal["log1p", "zscore", "bucketize", "clip"]
    boundaries: tuple[float, ...] = ()
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "boundaries", tuple(self.boundaries))
        if self.name not in _ARGUMENTS:
            raise ValueError(
                "`name` of a transform must be one of log1p, zscore, bucketize, clip. "
                f"Received: name={self.name!r}."
            )
        for argument in ("boundaries", "min", "max", "mean", "std"):
            value = getattr(self, argument)
            if value not in (None, ()) and argument not in _ARGUMENTS[self.name]:
                raise ValueError(
                    f"The transform `{self.name}` takes no `{argument}`. "
                    f"Received: {argument}={value}."
                )
        getattr(self, f"_check_{self.name}", lambda: None)()

    def _check_bucketize(self) -> None:
        rising = all(
            a < b
            for a, b in zip(self.boundaries[:-1], self.boundaries[1:], strict=True)
        )
        if not self.boundaries or not rising:
            raise ValueError(
                "`boundaries` must hold at least one number, in increasing order. "
                f"Received: boundaries={self.boundaries}."
            )

    def _check_clip(self) -> None:
        low = -math.inf if self.min is None else self.min
        high = math.inf if self.max is None else self.max
        if (self.min is None and self.max is None) or not low <= high:
            raise ValueError(
                "`clip` needs `min`, `max` or both, and `min` not above `max`. "
                f"Received: min={self.min}, max={self.max}."
            )

    def _check_zscore(self) -> None:
        if (self.mean is None) != (self.std is None) or (
            self.std is not None and not self.std > 0
        ):
            raise ValueError(
                "`mean` and `std` must be set together, `std` above 0. "
                f"Received: mean={self.mean}, std={self.std}. "
                "Leave both out to compute them from the training data."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One feature: the column it comes from, and how the model receives it.

    Attributes:
      name: Name of the feature, used by models and layers.
      kind: `id`: one value per example, looked up in an embedding table. `id_list`: any
        number of values per example, looked up and combined. `dense`: numbers.
      column: Column of the data to read; None means `name`.
      dtype: Type of the raw values: `int`, `string` or `float`; `auto` uses the type in
        the data files.
      table: Embedding table; features may share one. None means a separate table with
        the feature's name. Not for `dense`.
      combiner: How the rows of an `id_list` become one embedding; None means `mean`.
        `first_n` keeps the first `max_length` rows as a sequence, `none` all.
      max_length: An `id_list` keeps its first `max_length` values; 0 keeps all.
      default: Replaces a missing value: a number or a string, like the column's values.
        None makes a row without a value a bad row. A missing list is an empty list.
      transform: Steps, applied in order. Those of an id feature end in `bucketize`.
      dim: Numbers per example of a `dense` feature; above 1 the column holds lists of
        that length.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str
    kind: Literal["id", "id_list", "dense"]
    column: str | None = None
    dtype: Literal["auto", "int", "string", "float"] = "auto"
    table: str | None = None
    combiner: Literal["sum", "mean", "sqrtn", "max", "first_n", "none"] | None = None
    max_length: int = 0
    default: int | float | str | None = None
    transform: Annotated[tuple[TransformSpec, ...], OneOrMany()] = ()
    dim: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "transform", _transforms(self.transform))
        if not self.name:
            raise ValueError(f"`name` must not be empty. Received: name={self.name!r}.")
        if self.max_length < 0 or self.dim < 1:
            raise ValueError(
                "`max_length` must be at least 0 and `dim` at least 1. "
                f"Received: max_length={self.max_length}, dim={self.dim}."
            )
        self._check_kind()
        self._check_transform()
        _check_default(self.name, self.default, self.dtype)

    def _check_kind(self) -> None:
        if self.kind == "dense":
            only_ids = ("table", "combiner", "max_length")
            wrong = [name for name in only_ids if getattr(self, name)]
            if self.dtype == "string":
                wrong.append("dtype")
        else:
            wrong = ["dim"] if self.dim > 1 else []
            if self.kind == "id":
                wrong += [n for n in ("combiner", "max_length") if getattr(self, n)]
        if wrong:
            given = ", ".join(f"{name}={getattr(self, name)!r}" for name in wrong)
            raise ValueError(
                f"Feature `{self.name}`: not allowed with kind {self.kind}. "
                f"Received: {given}. Remove it, or change `kind`."
            )
        if self.combiner == "first_n" and not self.max_length:
            raise ValueError(
                f"Feature `{self.name}`: the combiner `first_n` needs `max_length`. "
                f"Received: max_length={self.max_length}."
            )

    def _check_transform(self) -> None:
        names = [step.name for step in self.transform]
        if "bucketize" in names[:-1]:
            raise ValueError(
                f"Feature `{self.name}`: `bucketize` must be the last transform. "
                f"Received: transform={names}."
            )
        if names.count("zscore") > 1:
            raise ValueError(
                f"Feature `{self.name}` can have one `zscore`. "
                f"Received: transform={names}."
            )
        if self.kind == "dense" or not names:
            return
        if names[-1] != "bucketize" or self.dtype == "string":
            raise ValueError(
                f"Feature `{self.name}` of kind {self.kind}: transforms turn numbers "
                "into ids only if the last one is `bucketize`. "
                f"Received: transform={names}, dtype={self.dtype!r}."
            )

    @property
    def source_column(self) -> str:
        """The column of the data that the feature is read from."""
        return self.column or self.name

    @property
    def table_name(self) -> str:
        """The embedding table of an id feature."""
        return self.table or self.name

    @property
    def width(self) -> int:
        """Numbers per example that the model receives of a dense feature."""
        if self.transform and self.transform[-1].name == "bucketize":
            return self.dim * (len(self.transform[-1].boundaries) + 1)
        return self.dim


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSpec(FromName):
    """One label, float32 per example.

    In a config file, a label that is the number in the column of the same name can be
    written as just that name.

    Attributes:
      name: Name of the label; a head of the same name predicts it.
      column: Column of the data; None means `name`.
      equals: The label is 1 where the column equals this, or one of these, and 0
        elsewhere; strings are compared without surrounding spaces. If left out, the
        column's number is the label, from 0 to 1 for a log loss.
      default: Replaces a missing value in the column; None makes a row without a label
        a bad row.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str
    column: str | None = None
    equals: Annotated[tuple[int | float | str, ...], OneOrMany()] = ()
    default: int | float | str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(f"`name` must not be empty. Received: name={self.name!r}.")
        if isinstance(self.equals, int | float | str):
            object.__setattr__(self, "equals", (self.equals,))
        object.__setattr__(self, "equals", tuple(self.equals))
        strings = [isinstance(value, str) for value in self.equals]
        if any(strings) and not all(strings):
            raise ValueError(
                f"`equals` of label `{self.name}` must be numbers or strings, not "
                f"both. Received: equals={self.equals!r}."
            )
        dtype: Any = "string" if any(strings) else "float"
        _check_default(self.name, self.default, dtype)

    @property
    def source_column(self) -> str:
        """The column of the data that the label is read from."""
        return self.column or self.name


def _transforms(
    value: str | TransformSpec | Sequence[str | TransformSpec],
) -> tuple[TransformSpec, ...]:
    """Converts the short forms that Python callers may use to the long form."""
    steps = [value] if isinstance(value, str | TransformSpec) else list(value)
    return tuple(
        TransformSpec(name=step) if isinstance(step, str) else step  # type: ignore[arg-type]
        for step in steps
    )


def _check_default(
    name: str,
    default: int | float | str | None,
    dtype: Literal["auto", "int", "string", "float"],
) -> None:
    """Raises ValueError if a default is not of the declared type."""
    if default is None or dtype == "auto":
        return
    fits = {
        "int": isinstance(default, int),
        "float": isinstance(default, int | float),
        "string": isinstance(default, str),
    }
    if not fits[dtype]:
        raise ValueError(
            f"`default` of `{name}` must be of its dtype, {dtype}. "
            f"Received: default={default!r}."
        )
