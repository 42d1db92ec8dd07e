"""Checks that several specs fit together.

Each check of a config has one place:

- one value, or several of one spec: the spec's `__post_init__`;
- types and keys, in all specs alike: `validate`;
- what opens a data file or loads `data.input_fn`: `data_checks`;
- `model` against other specs: `model_checks`, but `model.params`: `model_params`;
- `export` and `publish` against other specs: `export_checks`;
- any other specs against each other, such as `features` and `tables`: here.
"""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Literal
from typing import TypeAlias

from monolith_tf.config import document
from monolith_tf.config import errors
from monolith_tf.config import export_checks
from monolith_tf.config import model_checks
from monolith_tf.config import model_params
from monolith_tf.config import schema
from monolith_tf.distribute.spec import PipelineSpec
from monolith_tf.training import spec as training

DataCheck: TypeAlias = Literal["required", "present", "ignored"]
"""Which data files are checked: all that are named, those that exist, or none."""


def check_config(
    config: schema.ExperimentConfig, *, data: DataCheck = "present"
) -> None:
    """Checks a config that was made in Python, as `load_config` checks a file.

    Args:
      config: The config.
      data: As in `load_config`.

    Raises:
      ConfigError: If the config cannot be used.
    """
    check(config, document.Document("config", {}, {}), data=data)


def check(
    config: schema.ExperimentConfig, given: document.Document, *, data: DataCheck
) -> None:
    """Checks what one spec cannot check alone.

    Args:
      config: The config.
      given: The place of each value.
      data: As in `load_config`.

    Raises:
      ConfigError: If specs do not fit together, or do not fit the data.
    """
    problems = [
        given.problem(given.clip(path, keys=False), message)
        for path, message in (
            *_names(config),
            *_tables(config),
            *_metrics(config),
            *_evaluations(config),
            *model_checks.check(config),
            *export_checks.check(config),
        )
    ]
    if data != "ignored" and not problems:
        from monolith_tf.config import data_checks  # Imports pyarrow.

        found = data_checks.check(config, must_exist=data == "required")
        problems = [given.problem(path, message) for path, message in found]
    if problems:
        raise errors.ConfigError(problems)


def _names(config: schema.ExperimentConfig) -> errors.Complaints:
    for key in ("features", "labels", "tables"):
        yield from _duplicates(key, [entry.name for entry in getattr(config, key)])


def _duplicates(key: str, names: Sequence[str]) -> errors.Complaints:
    for index, name in enumerate(names):
        first = names.index(name)
        if first < index:
            path = (key, index, "name")
            yield path, f"duplicate name `{name}`, first given as `{key}[{first}]`."


def _tables(config: schema.ExperimentConfig) -> errors.Complaints:
    tables = schema.resolved_tables(config)
    names = [table.name for table in tables]
    missing = False
    for index, feature in enumerate(config.features):
        if feature.kind == "dense" or feature.table_name in names:
            continue
        missing = True
        if feature.table is not None:
            near = errors.did_you_mean(feature.table, names)
            yield (
                ("features", index, "table"),
                f"there is no table `{feature.table}`.{near}",
            )
        else:
            yield (
                ("features", index),
                f"feature `{feature.name}` names no table, and no table has its name. "
                "Set its `table`, or `default_table` for all such features.",
            )
    used = schema.features_of_tables(config)
    for index, table in enumerate(config.tables):
        # If a feature names a missing table, it may mean this one.
        if table.name not in used and not missing:
            yield (
                ("tables", index),
                f"no feature uses the table `{table.name}`. Remove it.",
            )
    for index, name in enumerate(config.trainer.drop_tables):
        if name in used:
            yield (
                ("trainer", "drop_tables", index),
                f"a feature uses the table `{name}`. Remove it here, or give the "
                "feature another table.",
            )
    if config.default_table is not None and config.default_table.slot is not None:
        yield (
            ("default_table", "slot"),
            "a slot belongs to one table. Remove it; each table gets its own.",
        )
    taken: dict[int, int] = {}
    for index, table in enumerate(config.tables):
        if table.slot is None:
            continue
        first = taken.setdefault(table.slot, index)
        if first != index:
            yield (
                ("tables", index, "slot"),
                f"slot {table.slot} already belongs to `tables[{first}]`.",
            )


def _metrics(config: schema.ExperimentConfig) -> errors.Complaints:
    from monolith_tf.metrics import registry

    features = {feature.name: feature for feature in config.features}
    for index, name in enumerate(config.metrics):
        try:
            needs_keys = registry.needs_keys(name)
        except (ImportError, ValueError) as error:
            yield ("metrics", index), str(error)
            continue
        if name in config.metrics[:index]:
            yield ("metrics", index), f"duplicate metric `{name}`."
        if needs_keys and config.group_by is None:
            yield (
                ("metrics", index),
                f"`{name}` compares rows of one group. Set `group_by` to the feature "
                "whose ids are the groups, such as the user.",
            )
    if config.group_by is None:
        return
    if config.group_by not in features:
        near = errors.did_you_mean(config.group_by, features)
        yield ("group_by",), f"there is no feature `{config.group_by}`.{near}"
    elif features[config.group_by].kind != "id":
        kind = features[config.group_by].kind
        yield ("group_by",), f"must name a feature of kind id. Received: kind {kind}."


def _evaluations(config: schema.ExperimentConfig) -> errors.Complaints:
    trainer = config.trainer
    yield from _stream(config)
    if trainer.mode == "progressive":
        yield from _progressive(config)
    elif config.data.reader is None and not config.data.has("eval"):
        for key in ("eval_every_steps", "eval_every_epochs"):
            if getattr(trainer, key) is not None:
                yield (
                    ("trainer", key),
                    "there are no rows to evaluate on. Set `data.eval` or "
                    "`data.validation_fraction`.",
                )
    for key in ("early_stop", "reduce_on_plateau"):
        spec = getattr(trainer, key)
        if spec is not None:
            path: errors.Path = ("trainer", key, "metric")
            yield from _watched(config, path, spec.metric, decided=spec.mode != "auto")
    if trainer.keep_best is not None:
        path = ("trainer", "keep_best")
        yield from _watched(config, path, trainer.keep_best, decided=False)


def _stream(config: schema.ExperimentConfig) -> errors.Complaints:
    """Checks what a topic, which has no end and no epochs, does not work with."""
    if config.data.stream is None:
        for name in config.trainer.checkpoint.by_events:
            yield (
                ("trainer", "checkpoint", name),
                "only messages of a topic, `data.stream`, have an event time. Use a "
                "number of steps, or a time such as `10m`.",
            )
        return
    if (config.trainer.epochs or 1) > 1:
        yield (
            ("trainer", "epochs"),
            "a topic is read once. Leave it out; `data.stream.until` ends the job.",
        )
    if config.trainer.eval_every_epochs is not None:
        yield (
            ("trainer", "eval_every_epochs"),
            "a topic has no epochs. Use `eval_every_steps`.",
        )


def _progressive(config: schema.ExperimentConfig) -> errors.Complaints:
    trainer = config.trainer
    if config.data.stream is None and trainer.eval_window_secs is not None:
        yield (
            ("trainer", "eval_window_secs"),
            "only the messages of a topic have a time. Use `eval_every_steps`.",
        )
    elif config.data.stream is None and trainer.eval_every_steps is None:
        yield (
            ("trainer", "eval_every_steps"),
            "must be set if `mode` is progressive: it is the number of batches scored "
            "together.",
        )
    is_shuffled = config.data.input_fn is None and config.data.stream is None
    if config.data.shuffle_buffer and is_shuffled:
        yield (
            ("data", "shuffle_buffer"),
            "progressive training reads the rows in their order. Set it to 0.",
        )
    if config.cluster is not None and config.data.stream is None:
        yield (
            ("trainer", "mode"),
            "progressive training on files runs in one process. Remove `cluster`.",
        )
    elif config.cluster is not None and config.cluster.pipeline != PipelineSpec():
        yield (
            ("cluster", "pipeline"),
            "in progressive training a step must see all before it. Leave it out.",
        )


def _watched(
    config: schema.ExperimentConfig, path: errors.Path, name: str, *, decided: bool
) -> errors.Complaints:
    """Checks a metric that a setting watches; `decided` if its direction is given."""
    known = list(watchable_metrics(config))
    if name not in known:
        near = errors.did_you_mean(name, known)
        yield path, f"there is no metric `{name}` in evaluations.{near}"
    elif not decided:
        try:
            training.rises(name)
        except ValueError as error:
            yield path, str(error)


def watchable_metrics(config: schema.ExperimentConfig) -> Iterable[str]:
    """Returns the possible names of evaluation metrics.

    These are `head/metric` for all heads and metrics, the metric alone if there is one
    head, and `loss`. The heads of your own model class are assumed to be named after
    the labels.
    """
    heads = model_params.heads(config) or [label.name for label in config.labels]
    names = [f"{head}/{metric}" for head in heads for metric in config.metrics]
    if len(heads) == 1:
        names.extend(config.metrics)
    return [*names, "loss"]
