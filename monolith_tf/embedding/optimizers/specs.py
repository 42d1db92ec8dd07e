"""Specs of row optimizers: one dataclass per optimizer, without TensorFlow.

In the formulas `g` is the gradient of a row summed over the batch, `w` its weights and
`lr` the learning rate of its slice at this step. A row is updated only in steps whose
batch holds its id, and steps are counted per row.

The names of Keras ("sgd", "adagrad", "adadelta", "adam", "rmsprop", "ftrl", "lion")
have the formulas and defaults of `tf_keras`. The forms of the original Monolith are
called "monolith_adagrad", "monolith_adam" and so on.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated
from typing import Any
from typing import Literal
from typing import TypeAlias

import pydantic

from monolith_tf import schedules
from monolith_tf.embedding.optimizers.adaptive_spec import AdadeltaSpec
from monolith_tf.embedding.optimizers.adaptive_spec import AdagradSpec
from monolith_tf.embedding.optimizers.adaptive_spec import AdamSpec
from monolith_tf.embedding.optimizers.adaptive_spec import AmsgradSpec
from monolith_tf.embedding.optimizers.adaptive_spec import RmspropSpec
from monolith_tf.embedding.optimizers.adaptive_spec import RmspropV2Spec
from monolith_tf.embedding.optimizers.adaptive_spec import RowwiseAdagradSpec
from monolith_tf.embedding.optimizers.monolith_spec import MonolithAdadeltaSpec
from monolith_tf.embedding.optimizers.monolith_spec import MonolithAdagradSpec
from monolith_tf.embedding.optimizers.monolith_spec import MonolithAdamSpec
from monolith_tf.embedding.optimizers.monolith_spec import MonolithFtrlSpec
from monolith_tf.embedding.optimizers.monolith_spec import MonolithRmspropSpec
from monolith_tf.embedding.optimizers.proximal_spec import FtrlSpec
from monolith_tf.embedding.optimizers.proximal_spec import GroupAdagradSpec
from monolith_tf.embedding.optimizers.proximal_spec import GroupFtrlSpec
from monolith_tf.embedding.optimizers.row_optimizer import RowOptimizer
from monolith_tf.types import JsonDict

__all__ = [
    "AdadeltaSpec",
    "AdagradSpec",
    "AdamSpec",
    "AmsgradSpec",
    "BatchSoftmaxSpec",
    "FtrlSpec",
    "GroupAdagradSpec",
    "GroupFtrlSpec",
    "LionSpec",
    "MomentumSpec",
    "MonolithAdadeltaSpec",
    "MonolithAdagradSpec",
    "MonolithAdamSpec",
    "MonolithFtrlSpec",
    "MonolithRmspropSpec",
    "MovingAverageSpec",
    "RmspropSpec",
    "RmspropV2Spec",
    "RowOptimizerSpec",
    "RowwiseAdagradSpec",
    "SgdSpec",
    "from_release_0_1",
    "row_optimizer",
    "to_plain",
]

_RENAMED = {
    name: f"monolith_{name}"
    for name in ("adagrad", "adadelta", "adam", "rmsprop", "ftrl")
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SgdSpec(RowOptimizer):
    """Stochastic gradient descent: `w -= lr * g`. No state without momentum.

    Attributes:
      momentum: Share of the last move that a step keeps, as in `MomentumSpec`.
      nesterov: As in `MomentumSpec`.
    """

    name: Literal["sgd"] = "sgd"
    momentum: float = 0.0
    nesterov: bool = False

    @property
    def kind(self) -> str:
        """See base class."""
        return _momentum_kind(self.nesterov) if self.momentum else "sgd"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MomentumSpec(RowOptimizer):
    """Gradient descent with momentum.

        n = momentum * n - lr * g
        w += n                                # w += momentum * n - lr * g if nesterov

    Source: Sutskever et al., ICML 2013.

    Attributes:
      momentum: Share of the last move that a step keeps.
      nesterov: Whether a step looks ahead by the new momentum.
    """

    name: Literal["momentum"] = "momentum"
    momentum: float = 0.9
    nesterov: bool = False

    @property
    def kind(self) -> str:
        """See base class."""
        return _momentum_kind(self.nesterov)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingAverageSpec(RowOptimizer):
    """The moving average of the pushed values, which are not gradients.

        w += lr * (1 - momentum) * (g - w)    # w = momentum * w + (1 - momentum) * g

    No state. The form on the right is for the default rate, 1.

    Attributes:
      learning_rate: Scales the step towards `g`; at 1 the plain moving average.
      momentum: Share of the average that a step keeps.
    """

    name: Literal["moving_average"] = "moving_average"
    learning_rate: float | schedules.ScheduleSpec = 1.0
    momentum: float = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class LionSpec(RowOptimizer):
    """Lion: steps of one size, in the direction of a momentum's sign.

        c = beta_1 * m + (1 - beta_1) * g
        w -= lr * sign(c)
        m = beta_2 * m + (1 - beta_2) * g

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023,
    algorithm 2 (arXiv:2302.06675).

    Attributes:
      beta_1: Share of the momentum in a step's direction.
      beta_2: Share of the momentum that a step keeps.
    """

    name: Literal["lion"] = "lion"
    learning_rate: float | schedules.ScheduleSpec = 1e-4
    beta_1: float = 0.9
    beta_2: float = 0.99


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSoftmaxSpec(RowOptimizer):
    """The mean number of steps between two batches that hold an id.

        w = (1 - lr) * w + lr * (step - last_step)
        last_step = step

    The gradient is not read; `1 / w` estimates how likely a batch is to hold the id,
    which an in-batch softmax corrects for. A new row has `last_step` 0.

    Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019,
    algorithm 2.

    Attributes:
      learning_rate: Weight of the newest interval.
    """

    name: Literal["batch_softmax"] = "batch_softmax"
    learning_rate: float | schedules.ScheduleSpec = 0.1


def _momentum_kind(nesterov: bool) -> str:
    return "momentum_nesterov" if nesterov else "momentum"


def _from_plain(value: object, make: pydantic.ValidatorFunctionWrapHandler) -> Any:
    """Returns a spec from a name, from a mapping, whose keys it records, or a spec."""
    value = {"name": value} if isinstance(value, str) else value
    spec = make(value)
    if isinstance(value, Mapping):
        spec.remember(value)
    return spec


RowOptimizerSpec: TypeAlias = Annotated[
    SgdSpec
    | AdagradSpec
    | RowwiseAdagradSpec
    | GroupAdagradSpec
    | AdadeltaSpec
    | AdamSpec
    | AmsgradSpec
    | MomentumSpec
    | MovingAverageSpec
    | RmspropSpec
    | RmspropV2Spec
    | FtrlSpec
    | GroupFtrlSpec
    | LionSpec
    | BatchSoftmaxSpec
    | MonolithAdagradSpec
    | MonolithAdadeltaSpec
    | MonolithAdamSpec
    | MonolithRmspropSpec
    | MonolithFtrlSpec,
    pydantic.Field(discriminator="name"),
    pydantic.WrapValidator(_from_plain),
]
"""Any row optimizer; a config may give the bare name, `optimizer: adagrad`."""

_adapter: pydantic.TypeAdapter[RowOptimizerSpec] = pydantic.TypeAdapter(
    RowOptimizerSpec
)


def row_optimizer(name: str, **hyperparameters: object) -> RowOptimizerSpec:
    """Returns the spec of the optimizer `name`.

    Args:
      name: "adagrad", "ftrl", or any other `name` of the specs.
      **hyperparameters: Fields of that spec.

    Raises:
      pydantic.ValidationError: A `ValueError`, if there is no such name or field.

    Example:
      >>> row_optimizer("adagrad", learning_rate=0.1).epsilon
      1e-07
    """
    return _adapter.validate_python({"name": name, **hyperparameters})


def to_plain(spec: RowOptimizerSpec) -> JsonDict:
    """Returns a spec as values that JSON can hold."""
    plain: JsonDict = _adapter.dump_python(spec, mode="json")
    return plain


def from_release_0_1(name: str) -> str:
    """Returns today's name of an optimizer that monolith_tf 0.1.0 called `name`.

    In that release the names of Keras meant the forms of the original Monolith.
    """
    return _RENAMED.get(name, name)
