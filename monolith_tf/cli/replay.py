"""Sends the rows of files to a Kafka topic, one JSON message each.

FILES are read like the files of a job, in their order. Use it to try out or test a job
on a topic with data that you have.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import stream_extra

if TYPE_CHECKING:
    from monolith_tf.data.spec import DataSpec
    from monolith_tf.data.stream import replay
    from monolith_tf.features.columns import ColumnType


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument(
        "files",
        metavar="FILES",
        help="rows: a file or a glob pattern; Parquet, CSV or TFRecord by the file "
        "extension, the last two also .gz or .zst",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="data.KEY=VALUE",
        help="reads FILES in another way than by default, such as data.delimiter=;",
    )
    parser.add_argument(
        "--to",
        required=True,
        metavar="URL",
        help="the topic: kafka://HOST:PORT/TOPIC",
    )
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        help="a job: FILES are read as its config says, and only its columns are sent",
    )
    parser.add_argument(
        "--rate",
        type=option_types.above_zero,
        metavar="N",
        help="messages per second (default: as fast as the brokers take them)",
    )
    parser.add_argument(
        "--time-column",
        metavar="COLUMN",
        help="column with the messages' times, in milliseconds since 1970 (default: "
        "the time of sending)",
    )
    parser.add_argument(
        "--key-column",
        metavar="COLUMN",
        help="column of the messages' keys: messages of one key go to one partition",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    stream_extra.check()
    from monolith_tf.data import prediction_rows
    from monolith_tf.data.stream import replay
    from monolith_tf.data.stream import spec as stream_spec

    try:
        stream = stream_spec.of_url(arguments.to)
    except ValueError as error:
        raise errors.UsageError(f"--to: {error}") from None
    reading, columns = _reading(arguments)
    try:
        found = prediction_rows.spec_for(reading, arguments.files)
    except ValueError as error:
        raise errors.UsageError(f"FILES: {error}") from None
    data = dataclasses.replace(found, train=found.test, test=())
    sent = replay.replay(
        data,
        stream,
        None if columns is None else columns(data),
        rate=arguments.rate,
        time_column=arguments.time_column,
        key_column=arguments.key_column,
        on_progress=_show,
    )
    _show(sent)
    return errors.DONE


def _reading(
    arguments: argparse.Namespace,
) -> "tuple[DataSpec, Callable[[DataSpec], Mapping[str, ColumnType]] | None]":
    """Returns how files are read, and a function that finds the columns to send."""
    from monolith_tf import config as config_lib
    from monolith_tf.cli import exported
    from monolith_tf.data import formats
    from monolith_tf.data import spec as data_spec
    from monolith_tf.features import columns as columns_lib

    if arguments.config is None:
        given = exported.overridden(pathlib.Path("FILES"), {}, arguments.overrides)
        return given, None
    config = config_lib.load_config(
        arguments.config, arguments.overrides, data="ignored"
    )

    def columns(data: "DataSpec") -> "Mapping[str, ColumnType]":
        return columns_lib.required_columns(
            config.features,
            config.labels,
            config.data.weight,
            schema=formats.read_schema(data, "train"),
        )

    return data_spec.DataSpec(**data_spec.reading_part(config.data)), columns


def _show(sent: "replay.Sent") -> None:
    rate = sent.messages / max(sent.secs, 1e-9)
    sys.stdout.write(
        f"Sent {sent.messages} messages in {sent.secs:.1f} s, {rate:.0f} per second; "
        f"skipped {sent.bad_rows} bad rows.\n"
    )
    sys.stdout.flush()
