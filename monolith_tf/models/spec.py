"""A model as data: a name, a class, or blocks of layers and the heads on them."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Literal

from monolith_tf import imports
from monolith_tf.features.shorthand import FromName
from monolith_tf.features.shorthand import OneOrMany

_REFERENCE = re.compile(
    r"(?P<name>[^\[\].]+)(\[(?P<index>\d+)\]|\.(?P<dotted>\d+)|\.(?P<part>\w+))?"
)

BUILT_IN: Mapping[str, str] = {
    "autoint": "monolith_tf.models.autoint:AutoInt",
    "dcn": "monolith_tf.models.dcn:DCN",
    "fibinet": "monolith_tf.models.fibinet:FiBiNET",
    "final_mlp": "monolith_tf.models.final_mlp:FinalMLP",
    "mmoe": "monolith_tf.models.mmoe:MMoE",
    "two_tower": "monolith_tf.models.two_tower:TwoTower",
}
"""Registered models: name in a config -> class."""

_LOG_LOSS = ("autoint", "dcn", "fibinet", "final_mlp", "mmoe")

BUILT_IN_GROUPS = ("all", "embeddings", "dense")
"""Predefined groups: all features, features with embeddings, dense features."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """What an entry of `inputs` names.

    Attributes:
      name: A feature, a group or a block.
      index: Index into the list that a block returns; None for all of it.
      part: `mask`, or a slice of the feature's row; None for the whole row.
    """

    name: str
    index: int | None = None
    part: str | None = None


def parse_reference(text: str) -> Reference:
    """Splits an entry of `inputs`.

    It is `name`, `block[0]` or `block.0`, `feature.slice` or `feature.mask`.

    Raises:
      ValueError: If `text` has none of these forms.
    """
    match = _REFERENCE.fullmatch(text)
    if not match:
        raise ValueError(
            "`inputs` must be names, or of the form `block[0]`, `feature.slice` or "
            f"`feature.mask`. Received: {text!r}."
        )
    index = match["index"] or match["dotted"]
    return Reference(
        match["name"], None if index is None else int(index), match["part"]
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One layer of an assembled model, or several joined inputs.

    Attributes:
      name: Name of the output in later blocks and heads; unique among blocks, groups
        and features.
      layer: A layer of `monolith_tf.layers`; None returns the joined inputs.
      args: The layer's arguments.
      inputs: Features, groups of features, or earlier blocks. `block.0`, or `block[0]`
        (in quotes inside a YAML list), is one tensor of a block that returns a list;
        `feature.slice` is one slice of a feature's row; `feature.mask` is the mask of a
        `first_n` feature; `group.slice` and `group.mask` are those of all its features.
      join: How the layer receives the inputs. `concat` concatenates them,
        `[batch, width]`; `stack` stacks inputs of equal width, `[batch, inputs, dim]`;
        `list` passes one list; `none` passes each as a separate argument, in order.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str
    layer: str | None = None
    args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: Annotated[tuple[str, ...], OneOrMany()]
    join: Literal["concat", "stack", "list", "none"] = "concat"

    def __post_init__(self) -> None:
        _check_inputs(self.inputs)
        if self.layer is None and (self.args or self.join == "none"):
            raise ValueError(
                "`layer` must be set with `args` or `join: none`. "
                f"Received: layer=None, args={dict(self.args)}, join={self.join!r}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One task of an assembled model.

        logits = sum over inputs of x[:, 0] if x has width 1 else Dense(1)(x)[:, 0]

    Attributes:
      label: The label it predicts.
      inputs: The inputs of the head, named as in `BlockSpec.inputs`; their logits are
        added.
      loss: `log_loss` predicts sigmoid(logits), `mse` predicts the logits.
      weight: Factor of its loss in the total, at least 0.
      sample_rate: Label with the rate, above 0, at which rows whose `label` is 0 were
        kept. The loss uses logits corrected by `LogitCorrection` to the sampled rows;
        predictions are for the data before sampling. None for no correction.
      name: Name of its predictions; None uses the label's name.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    label: str
    inputs: Annotated[tuple[str, ...], OneOrMany()]
    loss: Literal["log_loss", "mse"] = "log_loss"
    weight: float = 1.0
    sample_rate: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _check_inputs(self.inputs)
        if self.weight < 0:
            raise ValueError(
                f"`weight` must not be negative. Received: weight={self.weight}."
            )
        if self.sample_rate is not None and self.loss != "log_loss":
            raise ValueError(
                "`sample_rate` corrects the logits of a `log_loss`. Received: "
                f"sample_rate={self.sample_rate!r}, loss={self.loss!r}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec(FromName):
    """Which model to train: exactly one of `name`, `class` and `blocks`.

    In a config file a registered model without parameters may be written as its name
    alone.

    Attributes:
      name: A registered model.
      class_: Your own subclass of `monolith_tf.Model`, as `package.module:Class`; the
        key in a config is `class`.
      params: Parameters of the registered model or the class.
      blocks: Layers of a model assembled from the config, in order.
      heads: Its tasks, at least one.
      groups: Name -> features, usable as one entry of `inputs`. The groups `all`,
        `embeddings` and `dense` are predefined.
    """

    # `class` is a Python keyword.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "alias_generator": lambda name: name.removesuffix("_"),
    }

    name: str | None = None
    class_: str | None = None
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    blocks: tuple[BlockSpec, ...] = ()
    heads: tuple[HeadSpec, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [
            key
            for key, value in (
                ("name", self.name),
                ("class", self.class_),
                ("blocks", self.blocks),
            )
            if value
        ]
        if len(given) != 1:
            received = " and ".join(f"`{key}`" for key in given) or "none of them"
            raise ValueError(
                "Exactly one of `name`, `class` and `blocks` must be set. "
                f"Received: {received}."
            )
        if self.class_ is not None and not imports.is_name(self.class_):
            raise ValueError(
                "`class` must be of the form `package.module:Class`. "
                f"Received: class={self.class_!r}."
            )
        if self.blocks:
            _check_assembled(self)
        elif self.heads or self.groups:
            key = "heads" if self.heads else "groups"
            raise ValueError(
                f"`{key}` belongs to a model assembled from `blocks`. "
                f"Received: `{key}` with `{given[0]}`. Remove it."
            )


def log_loss_labels(model: ModelSpec) -> frozenset[str]:
    """Returns the labels with a log loss, which must be from 0 to 1.

    The labels of your own `class` are not known.
    """
    labels = [head.label for head in model.heads if head.loss == "log_loss"]
    if model.name in _LOG_LOSS:
        tasks = model.params.get("tasks", ())
        labels += [tasks] if isinstance(tasks, str) else tasks
        labels += [model.params["label"]] if "label" in model.params else []
    return frozenset(labels)


def _check_inputs(inputs: tuple[str, ...]) -> None:
    if isinstance(inputs, str):
        raise TypeError(
            f"`inputs` must be a sequence of names. Received: inputs={inputs!r}. "
            "Put it in a tuple."
        )
    if not inputs:
        raise ValueError("`inputs` must name at least one input. Received: none.")
    for entry in inputs:
        parse_reference(entry)


def _check_assembled(model: ModelSpec) -> None:
    if model.params:
        raise ValueError(
            "`params` belongs to a model set by `name` or `class`; a block takes "
            f"`args`. Received: params={dict(model.params)} with `blocks`."
        )
    if not model.heads:
        raise ValueError("`heads` must have at least one entry. Received: none.")
    seen = set(BUILT_IN_GROUPS)
    for name in [*model.groups, *(block.name for block in model.blocks)]:
        if name in seen:
            raise ValueError(
                "`blocks` and `groups` must have unique names, other than "
                f"{', '.join(BUILT_IN_GROUPS)}. Received twice: {name!r}."
            )
        seen.add(name)
    heads = [head.name or head.label for head in model.heads]
    for head in heads:
        if heads.count(head) > 1:
            raise ValueError(
                f"`heads` must have unique names. Received twice: {head!r}. Give "
                "one a `name`."
            )
