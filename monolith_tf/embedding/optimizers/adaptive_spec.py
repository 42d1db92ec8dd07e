"""Specs of row optimizers that divide by a history of squared gradients.

Adagrad, Adadelta, Adam and RMSprop have the formulas and defaults of `tf_keras`.
"""

import dataclasses
from typing import ClassVar
from typing import Literal

from monolith_tf import schedules
from monolith_tf.embedding.optimizers.row_optimizer import RowOptimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdagradSpec(RowOptimizer):
    """Adagrad.

        n += g^2
        w -= lr * g / sqrt(n + epsilon)

    Source: Duchi et al., JMLR 12, 2011; as in `tf_keras`.

    Attributes:
      initial_accumulator_value: `n` of a new row.
      epsilon: Added under the root; may be 0 where the accumulator starts above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("initial_accumulator_value", "epsilon")

    name: Literal["adagrad"] = "adagrad"
    learning_rate: float | schedules.ScheduleSpec = 0.001
    initial_accumulator_value: float = 0.1
    epsilon: float = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowwiseAdagradSpec(RowOptimizer):
    """Adagrad with one accumulator per row: little state for wide rows.

        n += mean(g^2)                        # one number per row
        w -= lr * g / (sqrt(n) + epsilon)

    Source: Gupta et al., "Training Recommender Systems at Scale", KDD 2021, 3
    (arXiv:2105.01064), and FBGEMM's `EXACT_ROWWISE_ADAGRAD`.

    Attributes:
      initial_accumulator_value: `n` of a new row.
      epsilon: Added to the root.
    """

    divisors: ClassVar[tuple[str, ...]] = ("initial_accumulator_value", "epsilon")

    name: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    learning_rate: float | schedules.ScheduleSpec = 0.05
    initial_accumulator_value: float = 0.0
    epsilon: float = 1e-8


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdadeltaSpec(RowOptimizer):
    """Adadelta.

        a = rho * a + (1 - rho) * g^2
        d = sqrt(u + epsilon) / sqrt(a + epsilon) * g
        u = rho * u + (1 - rho) * d^2
        w -= lr * d

    Source: Zeiler, 2012, algorithm 1 (arXiv:1212.5701); as in `tf_keras`.

    Attributes:
      rho: Share of the running means that a step keeps.
      epsilon: Added under both roots, above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["adadelta"] = "adadelta"
    learning_rate: float | schedules.ScheduleSpec = 0.001
    rho: float = 0.95
    epsilon: float = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamSpec(RowOptimizer):
    """Adam; the bias correction counts the row's own updates.

        t += 1
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g^2
        w -= lr * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)

    Source: Kingma and Ba, ICLR 2015, section 2, the form before section 2.1
    (arXiv:1412.6980); as in `tf_keras`.

    Attributes:
      beta_1: Share of the mean gradient that a step keeps.
      beta_2: Share of the mean squared gradient that a step keeps.
      epsilon: Added to the root, above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["adam"] = "adam"
    learning_rate: float | schedules.ScheduleSpec = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmsgradSpec(RowOptimizer):
    """Adam that divides by the largest `v` so far.

        t, m, v as in "monolith_adam"
        x = max(x, v)
        w -= lr * (m / (1 - beta_1^t)) / (sqrt(x / (1 - beta_2^t)) + epsilon)

    Source: Reddi et al., ICLR 2018, algorithm 2 (arXiv:1904.09237), with Adam's bias
    correction.

    Attributes:
      beta_1: Share of the mean gradient that a step keeps.
      beta_2: Share of the mean squared gradient that a step keeps.
      epsilon: Added to the root, above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["amsgrad"] = "amsgrad"
    beta_1: float = 0.9
    beta_2: float = 0.99
    epsilon: float = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmspropSpec(RowOptimizer):
    """RMSprop.

        n = rho * n + (1 - rho) * g^2
        w -= lr * g / sqrt(n + epsilon)

    Source: as in `tf_keras`, without its momentum and centered form.

    Attributes:
      rho: Share of the mean squared gradient that a step keeps.
      epsilon: Added under the root, above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float | schedules.ScheduleSpec = 0.001
    rho: float = 0.9
    epsilon: float = 1e-7


@dataclasses.dataclass(frozen=True, kw_only=True)
class RmspropV2Spec(RowOptimizer):
    """RMSprop with a decaying sum instead of a mean; adds `epsilon` to the root.

        n = rho * n + g^2
        w -= lr * g / (sqrt(n) + epsilon)

    Attributes:
      rho: Share of the sum of squared gradients that a step keeps.
      epsilon: Added to the root, above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["rmsprop_v2"] = "rmsprop_v2"
    rho: float = 0.9
    epsilon: float = 1.0
