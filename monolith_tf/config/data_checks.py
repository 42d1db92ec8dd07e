"""Checks of a config against the data: all that open a file or load `data.input_fn`.

They run last, only if the config is otherwise fine, and not for `data="ignored"`.
"""

import glob
import os
from collections.abc import Mapping

from monolith_tf import data
from monolith_tf import imports
from monolith_tf.config import errors
from monolith_tf.config import schema
from monolith_tf.data import arrow_types
from monolith_tf.data import formats
from monolith_tf.data.spec import Split
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features import columns
from monolith_tf.models import spec as models

_SPLITS: tuple[Split, ...] = ("train", "eval", "test")


def check(config: schema.ExperimentConfig, *, must_exist: bool) -> errors.Complaints:
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
        if split == "train" and config.data.stream is not None:
            # Only training reads it, and checks its messages then.
            yield from _stream(config, config.data.stream, must_exist=must_exist)
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


def _stream(
    config: schema.ExperimentConfig, stream: StreamSpec, *, must_exist: bool
) -> errors.Complaints:
    """Checks the columns of a topic whose schema is in a file."""
    paths = [stream.schema, *stream.schema_ids.values()]
    named = [os.path.expanduser(path) for path in paths if path is not None]
    if not named or not (must_exist or all(map(os.path.exists, named))):
        return
    try:
        from monolith_tf.data.stream import payloads

        found = payloads.Messages(stream).schema([])
    except (ImportError, ValueError) as error:
        yield ("data", "stream", "schema"), str(error)
        return
    yield from _columns(config, found)


def _unlike(
    split: Split,
    found: Mapping[str, columns.ColumnType],
    first: Split,
    wanted: Mapping[str, columns.ColumnType],
    *,
    reads_all: bool,
) -> errors.Complaints:
    """Yields columns of a split whose type differs from the job's first split.

    The job takes its types from the first split, so such columns cannot be read.
    """
    for name, type_ in wanted.items():
        here = found[name].dtype
        is_text = reads_all and type_.dtype == "string"
        if not is_text and not arrow_types.fits(here, type_.dtype):
            yield (
                ("data", split),
                f"column `{name}` looks like {here} here and like {type_.dtype} in "
                f"`data.{first}`. Set `dtype` where it is read, or fix the file.",
            )
        elif not arrow_types.mean_alike(found[name].kind, type_.kind):
            yield (
                ("data", split),
                f"column `{name}` has type {found[name].written}, but type "
                f"{type_.written}. Give it one type in all files.",
            )


def _columns(
    config: schema.ExperimentConfig, found: Mapping[str, columns.ColumnType]
) -> errors.Complaints:
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
