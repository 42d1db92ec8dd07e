"""Raw columns: their types, and which of them features and labels need."""

import dataclasses
import difflib
import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Literal

from monolith_tf.features.spec import FeatureSpec
from monolith_tf.features.spec import LabelSpec
from monolith_tf.features.spec import TransformSpec

DType = Literal["int64", "float32", "string"]

IdType = Literal["int", "string"]
"""The type of raw ids, as in `FeatureSpec.dtype`."""

_IDS: dict[IdType, str] = {"int": "integers", "string": "strings"}
_DTYPES: dict[str, DType] = {"int": "int64", "float": "float32", "string": "string"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnType:
    """The type of one raw column, in readers and in exports.

    Attributes:
      dtype: Type of the values.
      is_list: Whether each row holds a list of values.
      length: Values in every row's list; None where lists differ in length.
      default: Replaces a missing value (a missing element, in a list column of varying
        length); None makes a row without a value a bad row.
      choices: Values that synthetic rows use.
      elements: If a text cell may hold one value or a list, the type of the list's
        elements; None means `dtype`.
      is_probability: Whether a value outside [0, 1] makes a row bad, as for a label
        with a log loss.
      is_weight: Whether a negative or infinite value makes a row bad, as for weights of
        examples.
      refused: Infinities that make a row of the train split bad, if a `zscore` takes
        mean and deviation from the data.
      is_rounded: Whether the model receives the numbers as float32, without transforms.
      is_guess: Whether `dtype` is inferred from how most text cells look.
      example: In a text column, a cell that is not a number, its row and its file; in
        a column guessed to hold floats, such a cell that is not an integer.
      before: The type that version 0.1.0 inferred, if different.
      as_number: The type to read where numbers are needed, if different.
      is_truth: Whether text cells are true and false, which are 1 and 0; if None, most
        cells of each file decide.
      is_unsigned: Whether a file's integers from 2^63 on are read as the negative
        integers with the same bits.
      kind: What a file's numbers mean: "number", "bool", or dates and times with their
        unit, such as "timestamp[ms]"; empty if unknown. For a column to read, "amount"
        accepts numbers and bools: True is 1 there, but not an id.
      written: The column's type and its file, for error messages.
      is_readable: Whether the column can be read; if not, `dtype` has no meaning.
    """

    dtype: DType
    is_list: bool = False
    length: int | None = None
    default: int | float | str | None = None
    choices: tuple[int | float | str, ...] = ()
    elements: DType | None = None
    is_probability: bool = False
    is_weight: bool = False
    refused: tuple[float, ...] = ()
    is_rounded: bool = dataclasses.field(default=False, compare=False, repr=False)
    is_guess: bool = dataclasses.field(default=False, compare=False, repr=False)
    example: str = dataclasses.field(default="", compare=False, repr=False)
    before: DType | None = dataclasses.field(default=None, compare=False, repr=False)
    as_number: DType | None = dataclasses.field(default=None, compare=False, repr=False)
    is_truth: bool | None = dataclasses.field(default=None, compare=False, repr=False)
    is_unsigned: bool = dataclasses.field(default=False, compare=False, repr=False)
    kind: str = dataclasses.field(default="", compare=False, repr=False)
    written: str = dataclasses.field(default="", compare=False, repr=False)
    is_readable: bool = True


@dataclasses.dataclass(frozen=True)
class _Use:
    """How one feature or label uses a column.

    A dtype of None means the file's; `any_number` accepts any number as float32.
    """

    who: str
    column: str
    dtype: DType | None
    otherwise: DType  # if the file gives none
    is_list: bool = False
    length: int | None = None
    default: int | float | str | None = None
    choices: tuple[int | float | str, ...] = ()
    is_probability: bool = False
    is_weight: bool = False
    refused: tuple[float, ...] = ()
    is_rounded: bool = False
    any_number: bool = False


def required_columns(
    features: Sequence[FeatureSpec],
    labels: Sequence[LabelSpec] = (),
    weight: str | None = None,
    keys: Iterable[str] = (),
    *,
    schema: Mapping[str, ColumnType],
    probabilities: Collection[str] = (),
) -> dict[str, ColumnType]:
    """Returns the columns to read and the type of each.

    Args:
      features: The features, in config order.
      labels: The labels; empty for predictions.
      weight: Column of per-example weights.
      keys: More scalar columns to read as they are, for example keys of a metric.
      schema: Type of every column of the files, as `data.read_schema` returns it. If
        empty, ids without a `dtype` are integers.
      probabilities: Labels that must be from 0 to 1.

    Raises:
      ValueError: If a column is not in the files, if its type does not suit its use, or
        if two uses of one column conflict.
    """
    uses = [_feature_use(feature) for feature in features]
    uses += [_label_use(label, label.name in probabilities) for label in labels]
    if weight is not None:
        numbers = _Use("the weights", weight, None, "float32", choices=(1, 2))
        uses.append(dataclasses.replace(numbers, is_weight=True, any_number=True))
    uses += [_Use("a key", key, None, "int64") for key in keys]
    in_numbers = {use.column for use in uses if use.any_number}
    in_numbers -= {use.column for use in uses if not use.any_number}
    columns: dict[str, ColumnType] = {}
    first: dict[str, _Use] = {}
    for use in uses:
        made = _resolve(use, schema, in_numbers)
        before = columns.setdefault(use.column, made)
        other = first.setdefault(use.column, use)
        merged = _merge(before, made)
        if merged is None:
            raise ValueError(
                f"Column `{use.column}` is used by {other.who} as {before} and by "
                f"{use.who} as {made}. Set the same `dtype` and `default` for both, "
                "and make both lists or neither."
            )
        columns[use.column] = merged
    for feature in features:
        _check_feature(feature, columns[feature.source_column])
    for label in labels:
        _check_label(label, columns[label.source_column])
    if weight is not None and columns[weight].dtype == "string":
        raise ValueError(
            f"The weights must be numbers. Received: column `{weight}` of strings"
            f"{_such_as(columns[weight])}."
        )
    _check_tables(features, columns)
    return columns


def id_type(feature: FeatureSpec, columns: Mapping[str, ColumnType]) -> IdType:
    """Returns the type of a feature's raw ids.

    Args:
      feature: A feature of kind `id` or `id_list`.
      columns: The columns, as `required_columns` returns them.
    """
    is_string = columns[feature.source_column].dtype == "string"
    return "string" if is_string else "int"


def id_types(
    features: Sequence[FeatureSpec], columns: Mapping[str, ColumnType]
) -> dict[str, IdType]:
    """Returns table -> the type of its features' raw ids.

    Args:
      features: The features.
      columns: The columns, as `required_columns` returns them.
    """
    return {
        feature.table_name: id_type(feature, columns)
        for feature in features
        if feature.kind != "dense"
    }


def check_exists(column: str, known: Mapping[str, ColumnType], who: str) -> None:
    """Raises ValueError for an unknown column, suggesting the nearest name.

    It also raises one for a column whose type cannot be read.
    """
    if column in known:
        if known[column].is_readable:
            return
        raise ValueError(
            f"Column `{column}` for {who} is of type {known[column].written}, which "
            "cannot be read. Each row must hold one number, string, date or time, or a "
            "list of these. Write the part you need to a separate column."
        )
    names = [name for name, type_ in known.items() if type_.is_readable]
    near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    hint = (
        f"Did you mean `{near[0]}`?"
        if near
        else f"The data has: {', '.join(f'`{name}`' for name in names[:50])}."
    )
    raise ValueError(f"The data has no column `{column}` for {who}. {hint}")


def _feature_use(feature: FeatureSpec) -> _Use:
    dense = feature.kind == "dense"
    numeric = dense or bool(feature.transform)
    return _Use(
        f"feature `{feature.name}`",
        feature.source_column,
        _DTYPES.get(feature.dtype),
        "float32" if numeric else "int64",
        is_list=feature.kind == "id_list" or feature.dim > 1,
        length=feature.dim if feature.dim > 1 else None,
        default=feature.default,
        refused=_refused(feature.transform),
        is_rounded=dense and not feature.transform,
    )


def _refused(steps: Sequence[TransformSpec]) -> tuple[float, ...]:
    """Returns the infinities that reach a `zscore` without a mean of its own."""
    refused = {float("inf"), float("-inf")}
    for step in steps:
        if step.name == "zscore" and step.mean is None:
            return tuple(sorted(refused))
        if step.name == "clip":
            refused -= {float("inf")} if step.max is not None else set()
            refused -= {float("-inf")} if step.min is not None else set()
    return ()


def probability_columns(
    labels: Sequence[LabelSpec], probabilities: Collection[str]
) -> frozenset[str]:
    """Returns the columns whose numbers are labels that must be from 0 to 1.

    Args:
      labels: The labels.
      probabilities: Names of labels that must be from 0 to 1.
    """
    return frozenset(
        label.source_column
        for label in labels
        if label.name in probabilities and not label.equals
    )


def _label_use(label: LabelSpec, is_probability: bool) -> _Use:
    strings = any(isinstance(value, str) for value in label.equals)
    others = ("",) if strings else (max((0, *label.equals)) + 1,)  # type: ignore[operator]
    return _Use(
        f"label `{label.name}`",
        label.source_column,
        None,
        "string" if strings else "float32",
        default=label.default,
        choices=(*label.equals, *others) if label.equals else (0, 1),
        is_probability=is_probability and not label.equals,
        any_number=not label.equals,
    )


def _resolve(
    use: _Use, schema: Mapping[str, ColumnType], in_numbers: Collection[str]
) -> ColumnType:
    """Returns the type to read a column with for one use.

    Args:
      use: The use.
      schema: Type of every column of the files, or empty.
      in_numbers: Columns whose uses all accept any number.
    """
    if schema:
        check_exists(use.column, schema, use.who)
    dtype, example, is_guess = use.dtype, "", False
    wants_number = use.otherwise == "float32"
    kind = schema[use.column].kind if schema else ""
    written = schema[use.column].written if schema else ""
    if wants_number and kind in ("number", "bool"):
        kind = "amount"
    if dtype is None and schema:
        found = schema[use.column]
        dtype = (found.elements if use.is_list else None) or found.dtype
        # An odd cell may be a list of what is wanted.
        example = "" if use.is_list and dtype == "float32" else found.example
        if wants_number and not use.is_list and found.as_number is not None:
            dtype = found.as_number
        is_guess = found.is_guess and not wants_number
        if dtype == "int64" and found.is_guess and use.column in in_numbers:
            dtype = "float32"  # A fraction may come later.
    return ColumnType(
        dtype=dtype or use.otherwise,
        is_list=use.is_list,
        length=use.length,
        default=use.default,
        choices=use.choices,
        is_probability=use.is_probability,
        is_weight=use.is_weight,
        refused=use.refused,
        is_rounded=use.is_rounded,
        is_guess=is_guess,
        example=example,
        is_truth=schema[use.column].is_truth if schema else None,
        kind=kind,
        written=written,
    )


def _merge(a: ColumnType, b: ColumnType) -> ColumnType | None:
    """Returns the type that serves two uses, or None if none does."""
    if (a.dtype, a.is_list, a.length) != (b.dtype, b.is_list, b.length):
        return None
    if None not in (a.default, b.default) and a.default != b.default:
        return None
    return dataclasses.replace(
        a,
        default=a.default if b.default is None else b.default,
        choices=a.choices or b.choices,
        is_probability=a.is_probability or b.is_probability,
        is_weight=a.is_weight or b.is_weight,
        refused=tuple(sorted({*a.refused, *b.refused})),
        is_rounded=a.is_rounded or b.is_rounded,
        is_guess=a.is_guess or b.is_guess,
        kind=b.kind if a.kind == "amount" else a.kind,
    )


def _check_feature(feature: FeatureSpec, column: ColumnType) -> None:
    """Raises ValueError if a column's type does not suit a feature."""
    numeric = feature.kind == "dense" or bool(feature.transform)
    if numeric and column.dtype == "string":
        raise ValueError(
            f"Feature `{feature.name}` needs numbers. Received: column "
            f"`{feature.source_column}` of strings{_such_as(column)}."
            f"{_with_point(column)} Use kind id without transforms."
        )
    if not numeric and column.dtype == "float32":
        raise ValueError(
            f"Feature `{feature.name}` of kind {feature.kind} needs integers or "
            f"strings. Received: column `{feature.source_column}` of floats"
            f"{_such_as(column)}. Add a `bucketize` transform, or set kind dense."
            + (" With `dtype: int` such cells make bad rows." if column.example else "")
        )
    if column.default is not None and (column.dtype == "string") != isinstance(
        column.default, str
    ):
        raise ValueError(
            f"`default` of feature `{feature.name}` must have its column's type, "
            f"{column.dtype}. Received: default={column.default!r}."
        )


def _such_as(column: ColumnType) -> str:
    """Returns an example cell that makes a column a text column, if known."""
    return f", such as {column.example} (counting from 0)" if column.example else ""


def _with_point(column: ColumnType) -> str:
    """Returns what to add where numbers with a comma make a column one of text."""
    has_comma = re.match(r"'[+-]?[0-9]+,[0-9]+'", column.example)
    return " Write numbers with a decimal point." if has_comma else ""


def _check_tables(
    features: Sequence[FeatureSpec], columns: Mapping[str, ColumnType]
) -> None:
    """Raises ValueError if features of one table have ids of different types."""
    first: dict[str, FeatureSpec] = {}
    for feature in features:
        if feature.kind == "dense":
            continue
        other = first.setdefault(feature.table_name, feature)
        kinds = [id_type(one, columns) for one in (other, feature)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"Features `{other.name}` and `{feature.name}` share the table "
                f"`{feature.table_name}`, but their ids have different types: column "
                f"`{other.source_column}` holds {_IDS[kinds[0]]}, column "
                f"`{feature.source_column}` {_IDS[kinds[1]]}. The same value would "
                "have two rows. Set the same `dtype`, int or string, for both "
                "features, or use separate tables."
            )


def _check_label(label: LabelSpec, column: ColumnType) -> None:
    """Raises ValueError if a column's type does not suit a label."""
    strings = any(isinstance(value, str) for value in label.equals)
    if column.dtype == "string" and not strings:
        raise ValueError(
            f"Label `{label.name}` needs numbers. Received: column "
            f"`{label.source_column}` of strings{_such_as(column)}."
            f"{_with_point(column)} Set `equals` to the string that makes the label 1."
        )
    if column.dtype != "string" and strings:
        raise ValueError(
            f"`equals` of label `{label.name}` holds strings. Received: column "
            f"`{label.source_column}` of {column.dtype}. Set `equals` to numbers."
        )
    default = column.default
    if (
        column.is_probability
        and isinstance(default, int | float)
        and not 0 <= default <= 1
    ):
        raise ValueError(
            f"`default` of label `{label.name}` must be from 0 to 1 for a log loss. "
            f"Received: default={default}."
        )
