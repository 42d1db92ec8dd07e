"""Specs of row optimizers that make weights, or whole rows, exactly zero."""

import dataclasses
from typing import ClassVar
from typing import Literal

from monolith_tf import schedules
from monolith_tf.embedding.optimizers.row_optimizer import RowOptimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupAdagradSpec(RowOptimizer):
    """Adagrad with one accumulator per row and a group lasso that zeroes whole rows.

        n += max(g^2)                         # one number per row
        e = lr / (beta + sqrt(n))
        z = w - e * g
        w = z * max(0, 1 - e * l2 / norm(z))

    Attributes:
      initial_accumulator_value: `n` of a new row.
      beta: Added to the root.
      l2: Strength of the penalty on the L2 norm of a row.
    """

    divisors: ClassVar[tuple[str, ...]] = ("initial_accumulator_value", "beta")

    name: Literal["group_adagrad"] = "group_adagrad"
    initial_accumulator_value: float = 0.1
    beta: float = 0.0
    l2: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FtrlSpec(RowOptimizer):
    """FTRL-proximal: sparse weights.

        n' = n + g^2
        z += g - (sqrt(n') - sqrt(n)) / lr * w
        w = 0                                                          if abs(z) <= l1
        w = -(z - sign(z) * l1) / ((beta + sqrt(n')) / lr + 2 * l2)    otherwise

    The learning rate scales the whole weight in the last formula, so a decaying
    schedule shrinks weights too; FTRL's own `sqrt(n)` already makes steps smaller.

    Source: McMahan et al., "Ad Click Prediction", KDD 2013, algorithm 1; as in
    `tf_keras`, where `l1` is `l1_regularization_strength` and `l2` is
    `l2_regularization_strength`.

    Attributes:
      learning_rate: Above 0 at every step.
      weight_decay: Decays the `w` that enters `z`; `l2` is FTRL's usual penalty.
      initial_accumulator_value: `n` of a new row.
      beta: Added to the root.
      l1: Strength of the penalty on `abs(w)`, which makes weights exactly 0.
      l2: Strength of the penalty on `w^2`.
    """

    divisors: ClassVar[tuple[str, ...]] = ("initial_accumulator_value", "beta", "l2")
    divides_by_rate: ClassVar[bool] = True

    name: Literal["ftrl"] = "ftrl"
    learning_rate: float | schedules.ScheduleSpec = 0.001
    initial_accumulator_value: float = 0.1
    beta: float = 0.0
    l1: float = 0.0
    l2: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupFtrlSpec(RowOptimizer):
    """FTRL-proximal with a group lasso: whole rows become zero.

        z, n as in "ftrl"; b = l1 * sqrt(dim)
        w = 0                                                      if norm(z) <= b
        w = -(1 - b / norm(z)) * z / ((beta + sqrt(n')) / lr + l2)   otherwise

    Source: Ni et al., "Feature Selection for Facebook Feed Ranking System via a
    Group-Sparsity-Regularized Training Algorithm", CIKM 2019.

    Attributes:
      learning_rate: Above 0 at every step.
      weight_decay: Decays the `w` that enters `z`; `l2` is FTRL's usual penalty.
      initial_accumulator_value: `n` of a new row.
      beta: Added to the root.
      l1: Strength of the penalty on the L2 norm of a row.
      l2: Strength of the penalty on `w^2 / 2`.
    """

    divisors: ClassVar[tuple[str, ...]] = ("initial_accumulator_value", "beta", "l2")
    divides_by_rate: ClassVar[bool] = True

    name: Literal["group_ftrl"] = "group_ftrl"
    initial_accumulator_value: float = 0.0
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
