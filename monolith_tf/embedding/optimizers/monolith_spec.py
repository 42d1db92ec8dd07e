"""Specs of row optimizers with the forms and defaults of the original Monolith."""

import dataclasses
from typing import ClassVar
from typing import Literal

from monolith_tf import schedules
from monolith_tf.embedding.optimizers.row_optimizer import RowOptimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonolithAdagradSpec(RowOptimizer):
    """Adagrad that adds `epsilon` to the root.

        n += g^2
        w -= lr * g / (sqrt(n) + epsilon)

    Source: Duchi et al., JMLR 12, 2011.

    Attributes:
      initial_accumulator_value: `n` of a new row.
      epsilon: Added to the root; may be 0 where the accumulator starts above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("initial_accumulator_value", "epsilon")

    name: Literal["monolith_adagrad"] = "monolith_adagrad"
    learning_rate: float | schedules.ScheduleSpec = 0.05
    initial_accumulator_value: float = 0.1
    epsilon: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonolithAdadeltaSpec(RowOptimizer):
    """Adadelta with a large `epsilon`, and the formula of "adadelta".

    Attributes:
      rho: Share of the running means that a step keeps.
      epsilon: Added under both roots, above 0.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["monolith_adadelta"] = "monolith_adadelta"
    rho: float = 0.9
    epsilon: float = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonolithAdamSpec(RowOptimizer):
    """Adam that adds `epsilon` to the bias-corrected root.

        t += 1
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g^2
        w -= lr * (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + epsilon)

    Source: Kingma and Ba, ICLR 2015, algorithm 1 (arXiv:1412.6980).

    Attributes:
      beta_1: Share of the mean gradient that a step keeps.
      beta_2: Share of the mean squared gradient that a step keeps.
      epsilon: Added to the root, above 0. The default is far larger than the usual
        1e-8, as rare ids see few and noisy gradients.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["monolith_adam"] = "monolith_adam"
    beta_1: float = 0.9
    beta_2: float = 0.99
    epsilon: float = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonolithRmspropSpec(RowOptimizer):
    """RMSprop that adds a large `epsilon` to the root.

        n = rho * n + (1 - rho) * g^2
        w -= lr * g / (sqrt(n) + epsilon)

    Attributes:
      rho: Share of the mean squared gradient that a step keeps.
      epsilon: Added to the root, above 0. The default, 1, bounds a step by `lr * g`.
    """

    divisors: ClassVar[tuple[str, ...]] = ("epsilon",)

    name: Literal["monolith_rmsprop"] = "monolith_rmsprop"
    rho: float = 0.9
    epsilon: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonolithFtrlSpec(RowOptimizer):
    """FTRL-proximal with the published `l2`, half that of "ftrl".

        n' = n + g^2
        z += g - (sqrt(n') - sqrt(n)) / lr * w
        w = 0                                                      if abs(z) <= l1
        w = -(z - sign(z) * l1) / ((beta + sqrt(n')) / lr + l2)    otherwise

    Source: McMahan et al., "Ad Click Prediction", KDD 2013, algorithm 1.

    Attributes:
      learning_rate: Above 0 at every step.
      weight_decay: Decays the `w` that enters `z`; `l2` is FTRL's usual penalty.
      initial_accumulator_value: `n` of a new row.
      beta: Added to the root.
      l1: Strength of the penalty on `abs(w)`, which makes weights exactly 0.
      l2: Strength of the penalty on `w^2 / 2`.
    """

    divisors: ClassVar[tuple[str, ...]] = ("initial_accumulator_value", "beta", "l2")
    divides_by_rate: ClassVar[bool] = True

    name: Literal["monolith_ftrl"] = "monolith_ftrl"
    initial_accumulator_value: float = 0.1
    beta: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
