"""Predicts from a SavedModel, with TensorFlow alone.

FILES hold raw features, in columns named like the model's inputs. They are read like
the job's own files, as the SavedModel or the job's config says. Other columns are not
read, and labels are not needed. The output has one row per row that is read, in order.
"""

import argparse
import pathlib
import sys

import pyarrow as pa

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import tables

_SHOWN_ROWS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument(
        "saved_model",
        metavar="SAVED_MODEL",
        help="a SavedModel, or a folder of versions (the newest is used); or a job's "
        "folder or config, for its newest export",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="data.KEY=VALUE",
        help="reads FILES in another way than the job's, such as data.delimiter=;",
    )
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILES",
        help="rows: a file or a glob pattern; Parquet, CSV or TFRecord by the file "
        "extension, the last two also .gz or .zst",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="predictions: .parquet, .csv or .jsonl",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="COLUMN",
        help="a column of FILES to write before the predictions, as key_COLUMN if one "
        "of them has its name; may be repeated",
    )
    parser.add_argument(
        "--batch-size",
        type=option_types.whole(1),
        default=4096,
        metavar="N",
        help="most rows per request (default: 4096)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf.cli import exported
    from monolith_tf.cli import output_files
    from monolith_tf.data import prediction_rows

    found = exported.find(arguments.saved_model, arguments.overrides)
    try:
        spec = prediction_rows.spec_for(found.reading, arguments.input)
    except ValueError as error:
        raise errors.UsageError(f"--input: {error}") from None
    sink = output_files.open_output(pathlib.Path(arguments.output))
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.cli import servable

    model = servable.Servable(found.path, found.columns_of(spec.format))
    keys = tuple(dict.fromkeys(arguments.key))
    source = prediction_rows.PredictionRows(spec, model.columns, keys)
    first: list[dict[str, object]] = []
    num_rows = 0
    with sink:
        for batch, passed in source.batches(arguments.batch_size):
            predictions = _beside(output_files.plain(passed), model.predict(batch))
            sink.write(predictions)
            num_rows += batch.num_rows
            if len(first) < _SHOWN_ROWS:
                wanted = _SHOWN_ROWS - len(first)
                first.extend(predictions.slice(0, wanted).to_pylist())
        if not num_rows:
            raise ValueError(_no_rows(source.files, source.num_bad_rows))
    rows = [[str(index), *row.values()] for index, row in enumerate(first)]
    tables.show(f"First predictions of {found.path}", ["row", *first[0]], rows)
    sys.stdout.write(f"{num_rows:,} predictions written to {arguments.output}.\n")
    if source.num_bad_rows:
        sys.stdout.write(
            f"{source.num_bad_rows:,} rows of the input were skipped, since "
            "`data.on_bad_row` is skip; the log names the first.\n"
        )
    return errors.DONE


def _beside(keys: pa.Table, predictions: pa.Table) -> pa.Table:
    """Returns keys and predictions; a key with the name of a prediction is renamed."""
    for name in keys.column_names:
        written = name
        while written in predictions.column_names:
            written = f"key_{written}"
        predictions = predictions.add_column(
            keys.column_names.index(name), written, keys[name]
        )
    return predictions


def _no_rows(files: list[str], num_bad_rows: int) -> str:
    why = f": all {num_bad_rows:,} were skipped as bad" if num_bad_rows else ""
    return f"There are no rows to predict in {', '.join(files[:5])}{why}."
