"""Checks of `model` against other specs: name, groups, blocks, heads, references.

Checks of its `params` are in `model_params`.
"""

from monolith_tf import layers
from monolith_tf.config import errors
from monolith_tf.config import model_params
from monolith_tf.config import schema
from monolith_tf.models import spec as models


def check(config: schema.ExperimentConfig) -> errors.Complaints:
    """Yields path and message of each wrong value in `model`."""
    name = config.model.name
    if name is not None and name not in models.BUILT_IN:
        near = errors.did_you_mean(name, models.BUILT_IN)
        yield (
            ("model", "name"),
            f"there is no model `{name}`.{near} Set `class` for your own model.",
        )
    labels = [label.name for label in config.labels]
    for index, head in enumerate(config.model.heads):
        for key in ("label", "sample_rate"):
            label = getattr(head, key)
            if label is not None and label not in labels:
                path = ("model", "heads", index, key)
                near = errors.did_you_mean(label, labels)
                yield path, f"there is no label `{label}`.{near}"
    yield from model_params.check(config)
    yield from _groups(config)
    yield from _blocks(config)


def _groups(config: schema.ExperimentConfig) -> errors.Complaints:
    features = [feature.name for feature in config.features]
    for group, members in config.model.groups.items():
        for index, member in enumerate(members):
            if member not in features:
                path = ("model", "groups", group, index)
                near = errors.did_you_mean(member, features)
                yield path, f"there is no feature `{member}`.{near}"


def _blocks(config: schema.ExperimentConfig) -> errors.Complaints:
    model = config.model
    features = {feature.name: feature for feature in config.features}
    known = {*features, *model.groups, *models.BUILT_IN_GROUPS}
    own = {name.lower(): name for name in layers.NAMES}
    for index, block in enumerate(model.blocks):
        path: errors.Path = ("model", "blocks", index)
        if block.name in features:
            message = f"the feature `{block.name}` already has this name."
            yield (*path, "name"), message
        # Layers of tf_keras are known only once TensorFlow is loaded.
        meant = own.get((block.layer or "").lower(), block.layer)
        if meant != block.layer:
            message = f"there is no layer `{block.layer}`. Did you mean `{meant}`?"
            yield (*path, "layer"), message
        yield from _inputs(block.inputs, path, known, config)
        known.add(block.name)
    for index, head in enumerate(model.heads):
        yield from _inputs(head.inputs, ("model", "heads", index), known, config)


def _inputs(
    inputs: tuple[str, ...],
    path: errors.Path,
    known: set[str],
    config: schema.ExperimentConfig,
) -> errors.Complaints:
    blocks = {block.name for block in config.model.blocks}
    for index, entry in enumerate(inputs):
        here = (*path, "inputs", index)
        if entry in known:
            continue
        reference = models.parse_reference(entry)
        name, number, part = reference.name, reference.index, reference.part
        if name not in known:
            if name in blocks:
                yield here, f"the block `{name}` is defined below. Move it up."
            else:
                near = errors.did_you_mean(name, sorted(known | blocks))
                yield here, f"there is no feature, group or block `{name}`.{near}"
        elif number is not None and name not in blocks:
            yield here, f"`{name}` is not a block, so it has no tensor {number}."
        elif part is not None:
            for feature in schema.members(config, name):
                yield from _part(feature, part, here, config)


def _part(
    name: str, part: str, here: errors.Path, config: schema.ExperimentConfig
) -> errors.Complaints:
    feature = next((f for f in config.features if f.name == name), None)
    if feature is None or feature.kind == "dense":
        yield here, f"`{name}` is not a feature with an embedding, so it has no parts."
        return
    tables = {table.name: table for table in schema.resolved_tables(config)}
    table = tables.get(feature.table_name)
    if table is None:
        return  # Reported at the feature.
    slices = [piece.name for piece in table.row_slices()]
    if part == "mask":
        if feature.combiner != "first_n":
            message = f"`{name}` has no mask: its combiner is not `first_n`."
            yield here, message
    elif part not in slices:
        near = errors.did_you_mean(part, slices)
        yield here, f"the table `{table.name}` has no slice `{part}`.{near}"
