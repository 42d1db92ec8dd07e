"""Settings that a checkpoint was trained under, and what a change of them means.

No number of a checkpoint shows them: a job that goes on with others keeps its rows and
weights, which then mean something else. So each checkpoint says them.
"""

import dataclasses
import json
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from absl import logging

from monolith_tf.config import dump
from monolith_tf.config import schema
from monolith_tf.training import checkpoint as checkpoint_lib

_MOST_SHOWN = 5


def of(config: schema.ExperimentConfig) -> dict[str, Any]:
    """Returns a config's settings as JSON has them, for the state of a checkpoint."""
    combiners = {column.feature: column.combiner for column in schema.columns(config)}
    settings = {
        "seed": config.seed,
        "features": {
            feature.name: {
                "column": feature.source_column,
                "combiner": combiners.get(feature.name),
                "max_length": feature.max_length,
                "transform": dump.to_plain(feature.transform),
            }
            for feature in config.features
        },
        "labels": {
            label.name: {"column": label.source_column, "equals": label.equals}
            for label in config.labels
        },
        "initializers": {
            table.name: {
                part.name: dataclasses.asdict(part.initializer)
                for part in table.row_slices()
            }
            for table in schema.resolved_tables(config)
        },
        "model": dict(_model(config)),
    }
    text = json.dumps(settings, default=str, skipkeys=True)
    plain: dict[str, Any] = json.loads(text)
    return plain


def warn(
    checkpoint: checkpoint_lib.Checkpoint, config: schema.ExperimentConfig
) -> None:
    """Warns of settings with which rows and weights of a checkpoint mean other things.

    A checkpoint that says nothing of them, of version 0.1.0, is taken to have the same.
    """
    saved = checkpoint.manifest["state"].get("settings", {})
    now = of(config)
    warn_of_inputs(checkpoint, config)
    before = saved.get("model", now["model"])
    unset = dict.fromkeys([*before, *now["model"]])
    changes = list(_changes(unset | before, unset | now["model"]))
    if changes:
        shown = [
            f"`{key}` was {before} and is {here} now"
            for key, before, here in changes[:_MOST_SHOWN]
        ]
        if len(changes) > _MOST_SHOWN:
            shown.append(f"and {len(changes) - _MOST_SHOWN} more")
        logging.warning(
            "%s was trained with another model: %s. Trained weights are kept. Set it "
            "back, or train in another `model_dir`, unless that is meant.",
            checkpoint.path,
            "; ".join(shown),
        )


def warn_of_inputs(
    checkpoint: checkpoint_lib.Checkpoint, config: schema.ExperimentConfig
) -> None:
    """Warns of features and labels that are made in another way than in a checkpoint.

    Those that only one of the two has are passed over.
    """
    saved, now = checkpoint.manifest["state"].get("settings", {}), of(config)
    for kind in ("feature", "label"):
        before = saved.get(f"{kind}s", {})
        for name, settings in now[f"{kind}s"].items():
            for key, old, new in _changes(before.get(name, {}), settings):
                logging.warning(
                    "%s: `%s` of %s `%s` was %s and is %s now. Trained rows and "
                    "weights are kept, which were trained for the former. Set it back, "
                    "or train in another `model_dir`, unless that is meant.",
                    checkpoint.path,
                    key,
                    kind,
                    name,
                    old,
                    new,
                )


def log(checkpoint: checkpoint_lib.Checkpoint, config: schema.ExperimentConfig) -> None:
    """Says what is drawn in another way than before, by a job that goes on."""
    saved, now = checkpoint.manifest["state"].get("settings", {}), of(config)
    for table, parts in now["initializers"].items():
        before = saved.get("initializers", {}).get(table, {})
        for name, old, new in _changes(before, parts):
            logging.info(
                "Table `%s`, slice `%s`: `initializer` was %s and is %s now: new rows "
                "begin by it, and trained rows are kept.",
                table,
                name,
                old,
                new,
            )
    seed = saved.get("seed", config.seed)
    if seed != config.seed:
        logging.info(
            "`seed` was %d and is %d now: new rows, dropout and the order of the data "
            "follow it, and trained rows are kept.",
            seed,
            config.seed,
        )


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yields key, old and new value of what both have and differs."""
    for key, value in now.items():
        old, new = _shown(before.get(key, value)), _shown(value)
        if old != new:
            yield key, old, new


def _shown(value: Any) -> str:
    return "not set" if value in (None, []) else json.dumps(value, sort_keys=True)


def _model(config: schema.ExperimentConfig) -> Iterator[tuple[str, Any]]:
    """Key -> value of a model; blocks and heads go by their names."""
    model = dump.to_plain(config.model)
    for kind in ("blocks", "heads"):
        named = {
            part.get("name", part.get("label")): part for part in model.pop(kind, ())
        }
        if named:
            model[kind] = named
    yield from _leaves(model, "model")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    else:
        yield path, value
