"""Parameters of the registered models, as data."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import TypeAlias

Label: TypeAlias = Annotated[str, "label"]
"""The name of a label in the config."""
Feature: TypeAlias = Annotated[str, "feature"]
"""The name of a feature in the config."""
IdFeature: TypeAlias = Annotated[str, "id feature"]
"""The name of a feature with ids."""
Slice: TypeAlias = Annotated[str, "slice"]
"""The name of a slice that all tables have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of a registered model: a config's `model.params`.

    Attributes:
      extra_outputs: What the model's exports return besides the predictions.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    extra_outputs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("units"):
                for width in _numbers(value):
                    if width < 1:
                        raise ValueError(
                            f"`{field.name}` must be at least 1. "
                            f"Received: {field.name}={value}."
                        )
            if field.name == "dropout" and not 0.0 <= value < 1.0:
                raise ValueError(
                    f"`dropout` must be in [0, 1). Received: dropout={value}."
                )

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the model's predictions."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneHead(Params):
    """Parameters of a model that predicts one label.

    Attributes:
      label: The label it predicts.
    """

    label: Label

    @property
    def heads(self) -> tuple[str, ...]:
        """See base class."""
        return (self.label,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoIntParams(OneHead):
    """Parameters of `AutoInt`.

    Attributes:
      label: The label it predicts.
      num_layers: Number of attention layers.
      attention_dim: Width of a feature after each layer.
      num_heads: Attention heads per layer; must divide `attention_dim`.
      hidden_units: Widths of the deep tower; empty for no tower.
      dropout: Share of a tower's units, and of the attention, dropped in training.
    """

    num_layers: int = 2
    attention_dim: int = 64
    num_heads: int = 4
    hidden_units: tuple[int, ...] = (400, 400, 400)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_heads < 1 or self.attention_dim % self.num_heads:
            raise ValueError(
                "`num_heads` must divide `attention_dim`. Received: "
                f"num_heads={self.num_heads}, attention_dim={self.attention_dim}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCNParams(OneHead):
    """Parameters of `DCN`.

    Attributes:
      label: The label it predicts.
      num_cross_layers: Number of cross layers.
      hidden_units: Widths of the deep tower.
      dropout: Share of a hidden layer's units dropped in training.
      batch_norm: Whether hidden layers use batch normalization.
    """

    num_cross_layers: int = 3
    hidden_units: tuple[int, ...] = (256, 128)
    dropout: float = 0.0
    batch_norm: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiBiNETParams(OneHead):
    """Parameters of `FiBiNET`, whose feature rows have two slices.

    Attributes:
      label: The label it predicts.
      vector: Slice that is gated and multiplied.
      linear: Slice of width 1 that is added to the logit.
      reduction: Features per unit of the gates' hidden layer, at least 1.
      hidden_units: Widths of the deep tower.
      dropout: Share of a layer's units dropped in training.
    """

    vector: Slice = "vec"
    linear: Slice = "linear"
    reduction: int = 2
    hidden_units: tuple[int, ...] = (400, 400, 400)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction < 1:
            raise ValueError(
                f"`reduction` must be at least 1. Received: reduction={self.reduction}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalMLPParams(OneHead):
    """Parameters of `FinalMLP`.

    Attributes:
      label: The label it predicts.
      contexts: For each of the two towers, the feature whose embedding gates the
        tower's inputs.
      gate_units: Width of the gates' hidden layer.
      hidden_units: For each tower, the widths of its layers, at least one.
      num_heads: Parts of the towers' outputs that are fused separately; must divide the
        last width of both.
      dropout: Share of a layer's units dropped in training.
    """

    contexts: tuple[IdFeature, IdFeature]
    gate_units: int = 400
    hidden_units: tuple[tuple[int, ...], tuple[int, ...]] = ((400,), (100,))
    num_heads: int = 5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = [units[-1] for units in self.hidden_units if units]
        if len(widths) < 2:
            raise ValueError(
                "`hidden_units` must have at least one width for each tower. "
                f"Received: hidden_units={self.hidden_units}."
            )
        if self.num_heads < 1 or any(width % self.num_heads for width in widths):
            raise ValueError(
                "`num_heads` must divide the last width of both towers. Received: "
                f"num_heads={self.num_heads}, widths={widths}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MMoEParams(Params):
    """Parameters of `MMoE`.

    Attributes:
      tasks: Labels, one task each.
      num_experts: Number of shared experts.
      expert_units: Widths of an expert's layers.
      tower_units: Widths of a task's tower above its mixture.
      dropout: Share of a mixture's units dropped in training.
      task_weights: Factor of each task's loss; empty weights all equally.
    """

    tasks: tuple[Label, ...]
    num_experts: int = 8
    expert_units: tuple[int, ...] = (16,)
    tower_units: tuple[int, ...] = (8,)
    dropout: float = 0.0
    task_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks:
            raise ValueError("`tasks` must name at least one label. Received: none.")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(
                f"`tasks` must name different labels. Received: tasks={self.tasks}."
            )
        if self.task_weights and len(self.task_weights) != len(self.tasks):
            raise ValueError(
                "`task_weights` must have one entry per task. Received: "
                f"{len(self.task_weights)} for {len(self.tasks)} tasks."
            )

    @property
    def heads(self) -> tuple[str, ...]:
        """See base class."""
        return self.tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTowerParams(OneHead):
    """Parameters of `TwoTower`.

    Attributes:
      label: The weight of a row as a positive; 0 if the user did not choose the item.
      user_features: Inputs of the user tower.
      item_features: Inputs of the item tower.
      item: The id feature that identifies the item of each row.
      item_interval: Another id feature of the item, with its own table of `dim` 1 and
        the optimizer `batch_softmax`. It learns the mean steps between two batches with
        the item, which correct the loss. None for no correction.
      user_units: Widths of the user tower; the last is the width of the embedding.
      item_units: Widths of the item tower, with the same last width.
      temperature: Divisor of the scores in the loss, above 0.
      normalize: Whether embeddings are scaled to length 1.
      dropout: Share of a hidden layer's units dropped in training.
    """

    extra_outputs: ClassVar[tuple[str, ...]] = ("user_embedding", "item_embedding")

    user_features: tuple[Feature, ...]
    item_features: tuple[Feature, ...]
    item: IdFeature
    item_interval: IdFeature | None = None
    user_units: tuple[int, ...] = (64, 32)
    item_units: tuple[int, ...] = (64, 32)
    temperature: float = 0.05
    normalize: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.user_features or not self.item_features:
            raise ValueError(
                "`user_features` and `item_features` must name at least one feature "
                f"each. Received: user_features={self.user_features}, "
                f"item_features={self.item_features}."
            )
        if not self.user_units or self.user_units[-1:] != self.item_units[-1:]:
            raise ValueError(
                "`user_units` and `item_units` must end in the same width. Received: "
                f"user_units={self.user_units}, item_units={self.item_units}."
            )
        if self.temperature <= 0:
            raise ValueError(
                "`temperature` must be above 0. "
                f"Received: temperature={self.temperature}."
            )


OF_MODEL: dict[str, type[Params]] = {
    "autoint": AutoIntParams,
    "dcn": DCNParams,
    "fibinet": FiBiNETParams,
    "final_mlp": FinalMLPParams,
    "mmoe": MMoEParams,
    "two_tower": TwoTowerParams,
}
"""Name of a registered model -> the class of its parameters."""


def _numbers(value: object) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    else:
        yield value
