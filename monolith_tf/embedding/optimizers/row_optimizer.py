"""What all row optimizer specs share."""

import dataclasses
import math
from collections.abc import Iterable
from typing import ClassVar
from typing import Self

import pydantic

from monolith_tf import schedules


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowOptimizer:
    """The fields that every row optimizer has, and the checks of its numbers.

    Attributes:
      learning_rate: A constant, or a schedule over the global step.
      weight_decay: Decoupled decay: `w -= lr * weight_decay * w` before a row's update.
        Rows that the step does not touch are not decayed.
      divisors: Fields whose sum an update divides by. At least one must be above 0,
        since a first gradient may be 0.
      divides_by_rate: Whether an update divides by the learning rate.
    """

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid"}
    _fractions: ClassVar[frozenset[str]] = frozenset(
        {"beta_1", "beta_2", "rho", "momentum"}
    )

    divisors: ClassVar[tuple[str, ...]] = ()
    divides_by_rate: ClassVar[bool] = False

    learning_rate: float | schedules.ScheduleSpec = 0.01
    weight_decay: float = 0.0

    def __new__(cls, **given: object) -> Self:
        """Makes a spec that records which of its fields were set explicitly."""
        spec = super().__new__(cls)
        spec.remember(given)
        return spec

    def remember(self, given: Iterable[str]) -> None:
        """Records the names of the fields that were set explicitly."""
        object.__setattr__(self, "_given", frozenset(given))

    @property
    def given(self) -> frozenset[str]:
        """Names of the fields that were set explicitly, not left at their default."""
        given: frozenset[str] = self.__dict__["_given"]
        return given

    @property
    def kind(self) -> str:
        """Name of the update rule; an optimizer may have several."""
        kind: str = getattr(self, "name")  # noqa: B009 - A field of every subclass.
        return kind

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if field.name in self._fractions and not 0 <= value < 1:
                raise ValueError(
                    f"`{field.name}` must be in [0, 1). Received: {field.name}={value}."
                )
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"`{field.name}` must be finite and not negative. "
                    f"Received: {field.name}={value}."
                )

        self._check_divisors()
        if self.divides_by_rate:
            self._check_rate()

    def _check_divisors(self) -> None:
        names = self.divisors
        if names and not any(getattr(self, name) for name in names):
            listed = " or ".join(f"`{name}`" for name in names)
            given = ", ".join(f"{name}={getattr(self, name)}" for name in names)
            raise ValueError(
                f"{listed} must be above 0, or a first gradient of 0 divides 0 by 0. "
                f"Received: {given}."
            )

    def _check_rate(self) -> None:
        rate = self.learning_rate
        if not isinstance(rate, schedules.ScheduleSpec):
            lowest = rate
        elif rate.name == "piecewise":
            lowest = min(rate.values)
        elif rate.name in ("polynomial", "cosine"):
            lowest = min(rate.learning_rate, rate.end_learning_rate)
        else:
            lowest = rate.learning_rate
        if lowest <= 0:
            raise ValueError(
                "`learning_rate` of FTRL, which divides by it, must stay above 0. "
                f"Received: learning_rate={rate}. Give a schedule a positive end, or "
                "use another optimizer."
            )
