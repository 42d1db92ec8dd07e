"""Checks of a config against the columns of the data files."""

import glob
import os
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TypeAlias

from monolith_tf import data
from monolith_tf import imports
from monolith_tf.config import errors
from monolith_tf.config import schema
from monolith_tf.data import arrow
from monolith_tf.data import formats
from monolith_tf.data.spec import Split
from monolith_tf.features import columns
from monolith_tf.features import id_kinds as kinds
from monolith_tf.models import spec as models
from monolith_tf.types import JsonMapping

Complaints: TypeAlias = Iterator[tuple[errors.Path, str]]

_SPLITS: tuple[Split, ...] = ("train", "eval", "test")


def check(config: schema.ExperimentConfig, *, must_exist: bool) -> Complaints:
    """Yields path and message of each value that does not fit the data.

    Args:
      config: The config.
      must_exist: Whether to also report a split without files and a function that does
        not exist.
    """
    if config.data.input_fn is not None:
        # Only training runs it, and checks its batches then.
        if must_exist:
            try:
                imports.load_name(config.data.input_fn, "data.input_fn")
            except (ImportError, ValueError) as error:
                yield ("data", "input_fn"), str(error)
        return
    first: tuple[Split, Mapping[str, columns.ColumnType]] | None = None
    for split in _SPLITS:
        if not config.data.has(split) or config.data.file_split(split) != split:
            continue
        patterns = config.data.patterns(split)
        is_there = any(
            any(glob.iglob(os.path.expanduser(pattern), recursive=True))
            for pattern in patterns
        )
        if patterns and not is_there and not must_exist and not config.data.reader:
            continue
        try:
            found = data.read_schema(config.data, split)
        except (ImportError, OSError, ValueError) as error:
            yield ("data", split), str(error)
            continue
        complaints = list(_columns(config, found))
        yield from complaints
        if complaints:
            return
        made = columns.required_columns(config.features, schema=found)
        first = first or (split, made)
        reads_all = formats.make_reader(config.data, split).holds_text
        yield from _unlike(split, made, *first, reads_all=reads_all)


def _unlike(
    split: Split,
    found: Mapping[str, columns.ColumnType],
    first: Split,
    wanted: Mapping[str, columns.ColumnType],
    *,
    reads_all: bool,
) -> Complaints:
    """Yields columns of a split whose type differs from the job's first split.

    The job takes its types from the first split, so such columns cannot be read.
    """
    for name, type_ in wanted.items():
        here = found[name].dtype
        is_text = reads_all and type_.dtype == "string"
        if not is_text and not arrow.fits(here, type_.dtype):
            yield (
                ("data", split),
                f"column `{name}` looks like {here} here and like {type_.dtype} in "
                f"`data.{first}`. Set `dtype` where it is read, or fix the file.",
            )
        elif not arrow.mean_alike(found[name].kind, type_.kind):
            yield (
                ("data", split),
                f"column `{name}` has type {found[name].written}, but type "
                f"{type_.written}. Give it one type in all files.",
            )


def column_types(
    config: schema.ExperimentConfig,
) -> dict[str, columns.ColumnType] | None:
    """Returns the raw columns that features read, with the types that the job uses.

    Returns:
      Column -> type, or None if only the job itself can find them: the files do not
      exist, or a function provides the data.
    """
    split = next((s for s in _SPLITS if config.data.has(s)), "train")
    if config.data.input_fn is not None:
        return None
    try:
        found = data.read_schema(config.data, split)
        return columns.required_columns(config.features, schema=found)
    except (ImportError, OSError, ValueError):
        return None


def id_kinds(
    config: schema.ExperimentConfig,
    state: JsonMapping | None = None,
) -> dict[str, str | None]:
    """Returns table -> description of its ids; empty if `column_types` is None.

    Args:
      config: The config.
      state: The state in the checkpoint from which the job resumes, if any. Its setting
        for large integers takes precedence.
    """
    found = column_types(config)
    if found is None:
        return {}
    large = {}
    for table in schema.resolved_tables(config):
        kept = None if state is None else kinds.kept(state, table.name)
        large[table.name] = kept or table.large_integers
    return {
        table: kinds.words(id_type, large[table])
        for table, id_type in columns.id_types(config.features, found).items()
    }


def _columns(
    config: schema.ExperimentConfig, found: Mapping[str, columns.ColumnType]
) -> Complaints:
    complaints = 0
    probabilities = models.log_loss_labels(config.model)
    uses: list[tuple[errors.Path, tuple, dict]] = [
        *(
            (
                ("features", index, "column" if feature.column else "name"),
                ([feature],),
                {},
            )
            for index, feature in enumerate(config.features)
        ),
        *(
            (("labels", index, "column" if label.column else "name"), ([], [label]), {})
            for index, label in enumerate(config.labels)
        ),
    ]
    if config.data.weight is not None:
        uses.append((("data", "weight"), ([],), {"weight": config.data.weight}))
    for path, arguments, more in uses:
        try:
            columns.required_columns(
                *arguments, **more, schema=found, probabilities=probabilities
            )
        except ValueError as error:
            complaints += 1
            yield path, str(error)
    if complaints:
        return
    try:
        columns.required_columns(
            config.features,
            config.labels,
            config.data.weight,
            schema=found,
            probabilities=probabilities,
        )
    except ValueError as error:
        yield ("features",), str(error)
