"""Predicts from a SavedModel, with TensorFlow alone.

FILE holds raw features, in columns named as the model's inputs; further columns are not
read. The predictions have one row for each of its rows, in order.
"""

import argparse
import pathlib
import sys

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import tables

_SHOWN_ROWS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the sub-command takes."""
    parser.add_argument(
        "saved_model",
        metavar="SAVED_MODEL",
        help="a SavedModel, or a folder of versions, of which the newest is taken",
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help="rows: .parquet or .csv"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="predictions: .parquet, .csv or .jsonl",
    )
    parser.add_argument(
        "--batch-size",
        type=option_types.whole(1),
        default=4096,
        metavar="N",
        help="rows per request (default: 4096)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf.cli import saved_model
    from monolith_tf.cli import tabular_files

    path = saved_model.find(pathlib.Path(arguments.saved_model))
    source = tabular_files.open_input(pathlib.Path(arguments.input))
    sink = tabular_files.open_output(pathlib.Path(arguments.output))
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.cli import servable

    model = servable.Servable(path)
    first: list[dict[str, object]] = []
    num_rows = 0
    with sink:
        for batch in source.batches(model.columns, arguments.batch_size):
            predictions = model.predict(batch, first_row=num_rows)
            sink.write(predictions)
            num_rows += batch.num_rows
            if len(first) < _SHOWN_ROWS:
                wanted = _SHOWN_ROWS - len(first)
                first.extend(predictions.slice(0, wanted).to_pylist())
    if first:
        rows = [[str(index), *row.values()] for index, row in enumerate(first)]
        tables.show(f"First predictions of {path}", ["row", *first[0]], rows)
    sys.stdout.write(f"{num_rows:,} predictions written to {arguments.output}.\n")
    return errors.DONE
