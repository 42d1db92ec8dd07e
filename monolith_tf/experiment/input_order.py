"""The order of a model's inputs, on which its dense weights depend.

A dense weight identifies its input only by position. So a resumed job uses the order of
its checkpoint, whatever the order of the lines of its config.
"""

import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import yaml
from absl import logging

from monolith_tf.config import schema
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.types import JsonDict

_KINDS = ("features", "labels")


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputOrder:
    """The inputs of a model, in order.

    Attributes:
      features: Names of the features.
      labels: Names of the labels.
      slices: Table -> names of the slices of its rows.
    """

    features: tuple[str, ...]
    labels: tuple[str, ...]
    slices: Mapping[str, tuple[str, ...]]

    def to_json(self) -> JsonDict:
        """Returns plain data for a checkpoint, which has the slices with its rows."""
        return {kind: list(getattr(self, kind)) for kind in _KINDS}


def of_config(config: schema.ExperimentConfig) -> InputOrder:
    """Returns the order of the lines of a config."""
    return InputOrder(
        features=tuple(feature.name for feature in config.features),
        labels=tuple(label.name for label in config.labels),
        slices={
            table.name: tuple(part.name for part in table.row_slices())
            for table in schema.resolved_tables(config)
        },
    )


def after(checkpoint: checkpoint_lib.Checkpoint, order: InputOrder) -> InputOrder:
    """Returns the order of a config's inputs that fits a checkpoint's weights.

    Inputs that both have keep the checkpoint's order. New inputs take the places of
    removed ones, in turn; any others keep their place in the config.

    Args:
      checkpoint: The checkpoint of the weights.
      order: The order of the config, or the result for another checkpoint.
    """
    saved = _saved(checkpoint)
    if saved is None:
        logging.info(
            "%s does not say in which order its model has its features; the job uses "
            "the config's order, which could not be checked.",
            checkpoint.path,
        )
        saved = {}
    placed = {
        kind: _placed(saved.get(kind, ()), getattr(order, kind)) for kind in _KINDS
    }
    slices = _saved_slices(checkpoint)
    taken = InputOrder(
        **placed,
        slices={
            table: _placed(slices.get(table, ()), names)
            for table, names in order.slices.items()
        },
    )
    for what, _, here in out_of_order(checkpoint, order):
        logging.info(
            "The %s of the config are in another order than in %s: %s. The model "
            "keeps the order of the checkpoint, for which its weights were trained.",
            what,
            checkpoint.path,
            ", ".join(f"`{name}`" for name in here),
        )
    return taken


def applied(
    config: schema.ExperimentConfig, order: InputOrder
) -> schema.ExperimentConfig:
    """Returns a config with its features and labels in an order."""
    features = {feature.name: feature for feature in config.features}
    labels = {label.name: label for label in config.labels}
    return dataclasses.replace(
        config,
        features=tuple(features[name] for name in order.features),
        labels=tuple(labels[name] for name in order.labels),
    )


def applied_to(table: TableSpec, order: InputOrder) -> TableSpec:
    """Returns a table with its slices in an order."""
    slices = {part.name: part for part in table.slices}
    ordered = tuple(slices[name] for name in order.slices[table.name] if slices)
    return dataclasses.replace(table, slices=ordered)


def differences(
    checkpoint: checkpoint_lib.Checkpoint, order: InputOrder
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields the inputs that only the checkpoint or only the config has.

    Yields:
      Their kind (`features`, `slices of table ...`), the removed ones, and the new
      ones; at least one of the two lists is not empty. A new input that takes the place
      of a removed one has the same index.
    """
    for what, before, now in _both(checkpoint, order):
        gone = [name for name in before if name not in now]
        new = [name for name in now if name not in before]
        if gone or new:
            yield what, gone, new


def out_of_order(
    checkpoint: checkpoint_lib.Checkpoint, order: InputOrder
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields inputs ordered differently in a checkpoint: kind, order then and now."""
    for what, before, now in _both(checkpoint, order):
        then = [name for name in before if name in now]
        here = [name for name in now if name in before]
        if then != here:
            yield what, then, here


def _placed(before: Sequence[str], now: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of `now`, with those in `before` in the order of `before`."""
    # `before` with each removed name replaced by a new one, while there are any, is the
    # order of the seated names. They fill their places in `now`; others do not move.
    new = iter([name for name in now if name not in before])
    seats = [name if name in now else next(new, None) for name in before]
    seated = [name for name in seats if name is not None]
    turns = iter(seated)
    return tuple(next(turns) if name in seated else name for name in now)


def _both(
    checkpoint: checkpoint_lib.Checkpoint, order: InputOrder
) -> Iterator[tuple[str, Sequence[str], Sequence[str]]]:
    """Yields kind, inputs of the checkpoint and of the order; skips unknown ones."""
    saved, slices = _saved(checkpoint) or {}, _saved_slices(checkpoint)
    for kind in _KINDS:
        if kind in saved:
            yield kind, saved[kind], getattr(order, kind)
    for table, names in order.slices.items():
        if table in slices:
            yield f"slices of table `{table}`", slices[table], names


def _saved(
    checkpoint: checkpoint_lib.Checkpoint,
) -> Mapping[str, Sequence[str]] | None:
    """Returns `features` and `labels` -> names; None if they are not known."""
    saved: Mapping[str, Sequence[str]] | None
    saved = checkpoint.manifest["state"].get("inputs")
    if saved is not None:
        return saved
    # Older checkpoints lack the entry; their order is that of their config's copy.
    try:
        text = checkpoint.config_path.read_text("utf-8")
        config = yaml.safe_load(text)
        return {
            kind: [entry["name"] for entry in config.get(kind, ())] for kind in _KINDS
        }
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return None


def _saved_slices(checkpoint: checkpoint_lib.Checkpoint) -> dict[str, list[str]]:
    return {
        table["name"]: [part["name"] for part in group["slices"]]
        for group in checkpoint.manifest["embedding"]["groups"]
        for table in group["tables"]
    }
