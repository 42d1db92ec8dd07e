"""Embedding tables and the columns that read them; does not import TensorFlow."""

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from typing import ClassVar
from typing import Literal
from typing import TypeAlias

import pydantic

from monolith_tf import ids
from monolith_tf.embedding.initializer_spec import InitializerSpec
from monolith_tf.embedding.initializer_spec import UniformSpec
from monolith_tf.embedding.optimizers.specs import MonolithAdagradSpec
from monolith_tf.embedding.optimizers.specs import RowOptimizerSpec

Compressor: TypeAlias = Literal["fp32", "fp16", "int8"]
Combiner: TypeAlias = Literal["sum", "mean", "sqrtn", "max", "first_n", "none"]

_LARGEST_HALF = 65504.0

DEFAULT_SLICE = "vec"
"""Name of the only slice of a table without `slices`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceSpec:
    """A named part of a table's rows, with its own training settings.

    Attributes:
      name: The name that models use; letters, digits, `_`, `-` and `.`.
      dim: Number of values, at least 1.
      initializer: How to draw a new row's values.
      optimizer: How a row's gradient updates it.
      clip_norm: Largest L2 norm of one row's gradient, summed over the batch; larger
        gradients are scaled down to it. None does not clip.
      l2: Weight of the penalty `l2 / 2 * |row|^2` on each row that a step updates:
        `l2 * row` is added to its gradient, after clipping.
      compressor: Storage of the served copy: "fp32", "fp16", or "int8", 8-bit integers.
        Training always uses fp32.
      int8_range: `int8` stores values from `-int8_range` to `int8_range`, above 0.
    """

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}

    name: str
    dim: int
    initializer: InitializerSpec = dataclasses.field(default_factory=UniformSpec)
    optimizer: RowOptimizerSpec = dataclasses.field(default_factory=MonolithAdagradSpec)
    clip_norm: float | None = None
    l2: float = 0.0
    compressor: Compressor = "fp32"
    int8_range: float = 1.0

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        _check_count("dim", self.dim)
        _check_spec("initializer", self.initializer, InitializerSpec)
        _check_spec("optimizer", self.optimizer, RowOptimizerSpec)
        _check_positive("clip_norm", self.clip_norm)
        if not 0 <= self.l2 < math.inf:
            raise ValueError(
                f"`l2` must be finite and not negative. Received: l2={self.l2}."
            )
        _check_choice("compressor", self.compressor, Compressor)
        _check_positive("int8_range", self.int8_range)

    @property
    def largest_served(self) -> float:
        """The largest absolute value that the served copy can store."""
        return {"fp32": math.inf, "fp16": _LARGEST_HALF, "int8": self.int8_range}[
            self.compressor
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSpec:
    """An embedding table: the layout of its rows, and how ids get and lose them.

    A table with one vector per id sets `dim`, and optionally `initializer`,
    `optimizer`, `clip_norm`, `l2`, `compressor` and `int8_range`, with the same meaning
    as in `SliceSpec`. A table whose rows have several parts sets `slices`.

    Attributes:
      name: The name that features use; letters, digits, `_`, `-` and `.`.
      dim: Values per row of a table with one slice, which is named "vec".
      slices: The parts of a row, in order.
      initializer: For the one slice; by default uniform in [-0.05, 0.05).
      optimizer: For the one slice; by default "monolith_adagrad".
      clip_norm: For the one slice.
      l2: For the one slice; by default 0.
      compressor: For the one slice; by default "fp32".
      int8_range: For the one slice; by default 1.
      slot: The namespace in the high bits of the table's ids, below 32768. If None, the
        store chooses it.
      large_integers: How to handle integers outside of [0, 2^48), where ids are made
        from integers. "exact" keys rows by all 64 bits, so no two integers share a row;
        such a table has its own index and rows. "hash" hashes them to 48 bits, where
        two may collide. By default training fails at the first such integer; outside
        training it has no row. A job's checkpoint keeps the choice.
      unknown: How training handles an id without a row: "insert" makes the row at the
        lookup, "zeros" reads zeros and makes it at the first gradient.
      update_rows: Which rows a step updates: "batch", those of the ids in the batch, or
        "all", the others too, with a gradient of 0, as an optimizer of a dense matrix
        does. Then `l2` and `weight_decay` shrink every row at every step, moments
        decay, and no row expires. The time of a step grows with the table; use it for
        tables of up to some 100,000 rows.
      admit_after: Occurrences of an id in training before it gets a row, at least 1.
      admission: How occurrences are counted: "exact" (memory grows with the ids),
        "sketch" (bounded memory, may admit early), or "probabilistic" (no memory, a
        chance of `1 / admit_after` at each occurrence). Each shard has a sketch of its
        ids. After a restore to another number of shards it may hold the ids of all
        shards, and then admits as many early as one sketch of all ids does.
      expire_after_days: Days after its last update until a row is dropped.
      expire_after_steps: Steps after its last update until a row is dropped.
      max_expired_share: Largest share of the rows that may expire by days at once,
        above 0 and at most 1. If more would, for example because the clock is a year
        ahead, the job fails before it drops any. Tables with fewer than 1,000 rows in a
        shard are not checked; 1 allows all.
      max_rows: Maximum rows of the table, over all shards.
      max_bytes: Maximum bytes of its rows with optimizer state, over all shards.
      when_full: At this limit, raise an error or drop the least recently updated rows.
        A job drops rows between its loops of steps, so a job that `max_steps` stops in
        the middle of a loop drops others than one that it does not stop.
    """

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}

    name: str
    dim: int | None = None
    slices: tuple[SliceSpec, ...] = ()
    initializer: InitializerSpec | None = None
    optimizer: RowOptimizerSpec | None = None
    clip_norm: float | None = None
    l2: float | None = None
    compressor: Compressor | None = None
    int8_range: float | None = None
    slot: int | None = None
    large_integers: ids.LargeIntegers | None = None
    unknown: Literal["insert", "zeros"] = "insert"
    update_rows: Literal["batch", "all"] = "batch"
    admit_after: int = 1
    admission: Literal["exact", "sketch", "probabilistic"] = "exact"
    expire_after_days: float | None = None
    expire_after_steps: int | None = None
    max_expired_share: float = 0.5
    max_rows: int | None = None
    max_bytes: int | None = None
    when_full: Literal["error", "evict_oldest"] = "error"

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        self._check_layout()
        if self.slot is not None:
            ids.check_slot(self.slot)
        for field in dataclasses.fields(self):
            if typing.get_origin(field.type) is Literal:
                _check_choice(field.name, getattr(self, field.name), field.type)
        if self.large_integers is not None:
            _check_choice("large_integers", self.large_integers, ids.LargeIntegers)
        _check_count("admit_after", self.admit_after)
        _check_positive("expire_after_days", self.expire_after_days)
        _check_count("expire_after_steps", self.expire_after_steps)
        if not 0 < self.max_expired_share <= 1:
            raise ValueError(
                "`max_expired_share` must be above 0 and at most 1. "
                f"Received: max_expired_share={self.max_expired_share}."
            )
        _check_count("max_rows", self.max_rows)
        _check_count("max_bytes", self.max_bytes)

    def _check_layout(self) -> None:
        if not self.slices:
            if self.dim is None:
                raise ValueError(
                    f"`dim` or `slices` must be given. Received: name={self.name!r}, "
                    "dim=None, slices=()."
                )
            self.row_slices()
            return
        shorthand = _SHORTHAND & {
            field.name
            for field in dataclasses.fields(self)
            if getattr(self, field.name) is not None
        }
        if shorthand:
            given = ", ".join(
                f"{key}={getattr(self, key)}" for key in sorted(shorthand)
            )
            raise ValueError(
                "`slices` must not be given together with what describes a single "
                f"slice. Received: name={self.name!r}, {given}. Move it into the "
                "slices."
            )
        names = [part.name for part in self.slices]
        if len(set(names)) < len(names):
            raise ValueError(f"`slices` must differ in name. Received: names={names}.")

    def row_slices(self) -> tuple[SliceSpec, ...]:
        """Returns the parts of a row in order; also for a table without `slices`."""
        if self.slices:
            return self.slices
        given = {key: getattr(self, key) for key in _SHORTHAND}
        given = {key: value for key, value in given.items() if value is not None}
        return (SliceSpec(name=DEFAULT_SLICE, **given),)

    @property
    def row_dim(self) -> int:
        """Values of one row, without optimizer state."""
        return sum(part.dim for part in self.row_slices())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnSpec:
    """How a feature uses a table.

    Attributes:
      feature: Name of the feature whose ids are looked up.
      table: Name of the table; features with the same table share its rows.
      combiner: How to combine the rows of one example's ids: "sum", "mean", "sqrtn"
        (sum divided by the square root of their number), "max", "first_n" (the first
        rows, padded with zeros), or "none" (a ragged list of all).
      max_length: Ids of an example beyond the first `max_length` are dropped before the
        lookup. `first_n` needs it.
    """

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}

    feature: str
    table: str
    combiner: Combiner = "sum"
    max_length: int | None = None

    def __post_init__(self) -> None:
        for field in ("feature", "table"):
            if not getattr(self, field):
                raise ValueError(f"`{field}` must not be empty. Received: {field}=''.")
        _check_choice("combiner", self.combiner, Combiner)
        _check_count("max_length", self.max_length)
        if self.combiner == "first_n" and self.max_length is None:
            raise ValueError(
                "`max_length` must be given with combiner='first_n'. "
                f"Received: feature={self.feature!r}, max_length=None."
            )


_SHORTHAND = frozenset(
    {"dim", "initializer", "optimizer", "clip_norm", "l2", "compressor", "int8_range"}
)

_FACTORIES = {
    "initializer": "initializer_spec.initializer",
    "optimizer": "optimizer_spec.row_optimizer",
}


def _check_name(argument: str, value: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", value):
        raise ValueError(
            f"`{argument}` must be of letters, digits, `_`, `-` and `.`, and not start "
            f"with the last two. Received: {argument}={value!r}."
        )


def _check_count(argument: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(
            f"`{argument}` must be at least 1. Received: {argument}={value}."
        )


def _check_positive(argument: str, value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise ValueError(
            f"`{argument}` must be finite and above 0. Received: {argument}={value}."
        )


def _check_choice(argument: str, value: str, choices: object) -> None:
    if value not in typing.get_args(choices):
        raise ValueError(
            f"`{argument}` must be one of {list(typing.get_args(choices))}. "
            f"Received: {argument}={value!r}."
        )


def _check_spec(argument: str, value: object, kinds: object) -> None:
    """`kinds` is an annotated union of spec classes."""
    union = typing.get_args(kinds)[0]
    if not isinstance(value, typing.get_args(union)):
        raise TypeError(
            f"`{argument}` must be a spec, such as "
            f"`{typing.get_args(union)[0].__name__}()`. "
            f"Received: {argument}={value!r}. To name one, call "
            f"`{_FACTORIES[argument]}({_named(value)})`."
        )


def _named(value: object) -> str:
    """Returns arguments of the factory call that makes the intended spec."""
    if isinstance(value, str):
        return repr(value)
    if not isinstance(value, Mapping) or "name" not in value:
        return "name, ..."
    fields = {key: part for key, part in value.items() if key != "name"}
    return ", ".join([repr(value["name"]), *(f"{k}={v!r}" for k, v in fields.items())])
