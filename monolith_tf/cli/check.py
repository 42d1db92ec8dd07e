"""Checks a config and estimates what the job needs; does not load TensorFlow.

Prints the resolved config, the features, and the embedding tables with their placement
and estimated memory. With --model it also builds the model and its parameters. With
--schema it prints the JSON schema of config files, for editors.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from monolith_tf.cli import errors
from monolith_tf.cli import option_types
from monolith_tf.cli import placement
from monolith_tf.cli import tables

if TYPE_CHECKING:
    from monolith_tf.config import schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    option_types.add_config(parser, nargs="?")
    parser.add_argument(
        "--model", action="store_true", help="also build the model, with TensorFlow"
    )
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON schema of configs"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    from monolith_tf import config as config_lib

    if arguments.schema:
        sys.stdout.write(json.dumps(config_lib.json_schema(), indent=2) + "\n")
        return errors.DONE
    if arguments.config is None:
        raise errors.UsageError("a CONFIG is needed, unless --schema is given.")
    config = config_lib.load_config(
        arguments.config, arguments.overrides, data="required"
    )
    sys.stdout.write(config_lib.dump_config(config) + "\n")
    show_features(config)
    placement.show(config)
    if arguments.model:
        _build_model(config, verbose=arguments.verbose)
    sys.stdout.write(f"{arguments.config} is fine.\n")
    return errors.DONE


def show_features(config: "schema.ExperimentConfig") -> None:
    """Prints the features and how the model receives each."""
    from monolith_tf.config import column_types
    from monolith_tf.config import schema
    from monolith_tf.features import columns as columns_lib

    types = column_types.column_types(config)
    rows: list[list[object]] = []
    dims = {table.name: table.row_dim for table in schema.resolved_tables(config)}
    columns = {column.feature: column for column in schema.columns(config)}
    for feature in config.features:
        if feature.kind == "dense":
            steps = [step.name for step in feature.transform]
            rows.append(
                [feature.name, feature.kind, None, None, feature.width, steps or None]
            )
            continue
        column = columns[feature.name]
        how: str | None = column.combiner if feature.kind == "id_list" else None
        if column.combiner == "first_n":
            how = f"first {column.max_length}"
        elif column.max_length is not None:
            how = f"{how} of the first {column.max_length}"
        ids = columns_lib.id_type(feature, types) if types is not None else None
        width = dims[column.table]
        rows.append([feature.name, feature.kind, ids, column.table, width, how])
    headers = ["feature", "kind", "ids", "table", "width", "how"]
    tables.show("Features", headers, rows)


def _build_model(config: "schema.ExperimentConfig", *, verbose: bool) -> None:
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=verbose)
    from monolith_tf.experiment import build

    job = build.Job(config)
    step = job.train_step(job.settle(None))
    variables = step.network.model.trainable_variables
    rows = [
        [variable.name, str(tuple(variable.shape)), variable.shape.num_elements()]
        for variable in variables
    ]
    tables.show("Dense variables", ["variable", "shape", "parameters"], rows)
    total = sum(variable.shape.num_elements() for variable in variables)
    sys.stdout.write(f"The model is built; it has {total:,} dense parameters.\n")
