"""The settings that a checkpoint was trained with; warns if they change.

Trained values do not show these settings: a job that resumes with other settings keeps
its rows and weights, whose meaning then changes. So checkpoints save the settings.
"""

import dataclasses
import json
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from absl import logging

from monolith_tf.config import dump
from monolith_tf.config import schema
from monolith_tf.experiment import harmless_settings
from monolith_tf.experiment import input_order
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_MOST_SHOWN = 5


def of(config: schema.ExperimentConfig) -> JsonDict:
    """Returns a config's settings as in JSON, for the state of a checkpoint."""
    combiners = {column.feature: column.combiner for column in schema.columns(config)}
    settings = {
        "seed": config.seed,
        "features": {
            feature.name: {
                **_compared(feature),
                "column": feature.source_column,
                "combiner": combiners.get(feature.name),
                "table": None if feature.kind == "dense" else feature.table_name,
            }
            for feature in config.features
        },
        "labels": {
            label.name: {**_compared(label), "column": label.source_column}
            for label in config.labels
        },
        "data": _compared(config.data),
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
    plain: JsonDict = json.loads(text)
    return plain


def warn(
    checkpoint: checkpoint_lib.Checkpoint, config: schema.ExperimentConfig
) -> None:
    """Warns of settings that change the meaning of a checkpoint's rows and weights.

    A checkpoint of version 0.1.0, which has no settings, is assumed to have the same.
    """
    saved = checkpoint.manifest["state"].get("settings", {})
    now = of(config)
    order = input_order.of_config(config)
    for what, lost, added in input_order.differences(checkpoint, order):
        _warn_of_others(checkpoint, what, lost, added)
    warn_of_inputs(checkpoint, config)
    for key, old, new in _changes(saved.get("data", {}), now["data"]):
        _warn_of_change(checkpoint, f"`data.{key}`", old, new)
    before = saved.get("model", now["model"])
    unset = dict.fromkeys([*before, *now["model"]])
    changes = list(_changes(unset | before, unset | now["model"]))
    if changes:
        shown = [
            f"`{key}` was {before} and is now {here}"
            for key, before, here in changes[:_MOST_SHOWN]
        ]
        if len(changes) > _MOST_SHOWN:
            shown.append(f"and {len(changes) - _MOST_SHOWN} more")
        logging.warning(
            "%s was trained with another model: %s. Trained weights are kept. Unless "
            "this is intended, set it back, or train in another `model_dir`.",
            checkpoint.path,
            "; ".join(shown),
        )


def warn_of_inputs(
    checkpoint: checkpoint_lib.Checkpoint, config: schema.ExperimentConfig
) -> None:
    """Warns of features and labels that are computed in another way than before.

    Those that only the checkpoint or only the config has are ignored.
    """
    saved, now = checkpoint.manifest["state"].get("settings", {}), of(config)
    for kind in ("feature", "label"):
        before = saved.get(f"{kind}s", {})
        for name, settings in now[f"{kind}s"].items():
            for key, old, new in _changes(before.get(name, {}), settings):
                what = f"`{key}` of {kind} `{name}`"
                _warn_of_change(checkpoint, what, old, new)


def warn_of_places(
    checkpoint: checkpoint_lib.Checkpoint, order: input_order.InputOrder
) -> None:
    """Warns if weights from another job's checkpoint now get a different input.

    Ignores inputs that only the checkpoint or only this job has, unless one takes the
    place of another.
    """
    for what, gone, new in input_order.differences(checkpoint, order):
        if gone and new:
            _warn_of_others(checkpoint, what, gone, new)
    for what, then, now in input_order.out_of_order(checkpoint, order):
        logging.warning(
            "%s was trained with %s in the order %s, which is %s now, as in a "
            "checkpoint that was taken after it: its weights meet other inputs than "
            "they were trained for, unless a block names these.",
            checkpoint.path,
            what,
            _named(then),
            _named(now),
        )


def log(checkpoint: checkpoint_lib.Checkpoint, config: schema.ExperimentConfig) -> None:
    """Logs changes of the initializers and the seed of a resumed job."""
    saved, now = checkpoint.manifest["state"].get("settings", {}), of(config)
    for table, parts in now["initializers"].items():
        before = saved.get("initializers", {}).get(table, {})
        for name, old, new in _changes(before, parts):
            logging.info(
                "Table `%s`, slice `%s`: `initializer` was %s and is now %s: new rows "
                "use it, and trained rows are kept.",
                table,
                name,
                old,
                new,
            )
    seed = saved.get("seed", config.seed)
    if seed != config.seed:
        logging.info(
            "`seed` was %d and is now %d: new rows, dropout and the order of the data "
            "use it, and trained rows are kept.",
            seed,
            config.seed,
        )


def _compared(spec: Any) -> JsonDict:
    """Returns key -> value of a spec, without keys that may change silently."""
    harmless = harmless_settings.HARMLESS[type(spec)]
    found = {}
    for field in dataclasses.fields(spec):
        if field.name not in harmless:
            value = getattr(spec, field.name)
            has_harmless = type(value) in harmless_settings.HARMLESS
            found[field.name] = (
                _compared(value) if has_harmless else dump.to_plain(value)
            )
    return found


def _warn_of_change(
    checkpoint: checkpoint_lib.Checkpoint, what: str, old: str, new: str
) -> None:
    logging.warning(
        "%s: %s was %s and is now %s. Rows and weights that were trained for the old "
        "value are kept. Unless this is intended, set it back, or train in another "
        "`model_dir`.",
        checkpoint.path,
        what,
        old,
        new,
    )


def _warn_of_others(
    checkpoint: checkpoint_lib.Checkpoint, what: str, gone: list[str], new: list[str]
) -> None:
    places = [
        f"`{name}` takes the place of `{former}`"
        for name, former in zip(new, gone, strict=False)
    ]
    places += [f"`{name}` is new" for name in new[len(gone) :]]
    places += [f"`{name}` is gone" for name in gone[len(new) :]]
    if len(places) > _MOST_SHOWN:
        places[_MOST_SHOWN:] = [f"and {len(places) - _MOST_SHOWN} more"]
    logging.warning(
        "%s was trained with other %s: %s. Trained weights are kept, and may meet "
        "other inputs than they were trained for. Unless this is intended, set them "
        "back, or train in another `model_dir`.",
        checkpoint.path,
        what,
        ", ".join(places),
    )


def _named(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _changes(before: JsonMapping, now: JsonMapping) -> Iterator[tuple[str, str, str]]:
    """Yields key, old and new value for keys of both whose values differ."""
    for key, value in now.items():
        old, new = _shown(before.get(key, value)), _shown(value)
        if old != new:
            yield key, old, new


def _shown(value: object) -> str:
    return "not set" if value in (None, []) else json.dumps(value, sort_keys=True)


def _model(config: schema.ExperimentConfig) -> Iterator[tuple[str, Any]]:
    """Yields key and value of a model's settings; blocks and heads by their names."""
    model = dump.to_plain(config.model)
    for kind in ("blocks", "heads"):
        named = {
            part.get("name", part.get("label")): part for part in model.pop(kind, ())
        }
        if named:
            model[kind] = named
    yield from _leaves(model, "model")


def _leaves(value: object, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}")
    else:
        yield path, value
