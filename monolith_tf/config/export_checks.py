"""Checks of `export` and `publish` against other specs."""

from monolith_tf.config import errors
from monolith_tf.config import model_params
from monolith_tf.config import schema
from monolith_tf.export import user_columns
from monolith_tf.export.errors import ExportError


def check(config: schema.ExperimentConfig) -> errors.Complaints:
    """Yields path and message of each wrong value in `export`."""
    heads, outputs = model_params.heads(config), model_params.outputs(config)
    for key, kind, known in (
        ("output_signatures", "output", outputs),
        ("classify", "head", heads),
        ("regress", "head", heads),
    ):
        names = getattr(config.export, key)
        for index, name in enumerate(names):
            path = ("export", key, index)
            if known and name not in known:
                near = errors.did_you_mean(name, known)
                yield path, f"the model has no {kind} `{name}`.{near}"
            elif name in names[:index]:
                yield path, f"duplicate name `{name}`."
    yield from _user_features(config)
    if config.publish is not None and not config.export.spare_rows:
        yield (
            ("publish",),
            "the servers' exports need room for new ids, and the job must track what "
            "changes. Set `export.spare_rows`, for example to 100000.",
        )


def _user_features(config: schema.ExperimentConfig) -> errors.Complaints:
    features = [feature.name for feature in config.features]
    missing = False
    for index, name in enumerate(config.export.user_features):
        if name not in features:
            missing = True
            near = errors.did_you_mean(name, features)
            path = ("export", "user_features", index)
            yield path, f"there is no feature `{name}`.{near}"
    if config.export.user_features and not missing:
        try:
            user_columns.find(config.features, config.export.user_features)
        except ExportError as error:
            message = str(error).removeprefix("`export.user_features` ")
            yield ("export", "user_features"), message
