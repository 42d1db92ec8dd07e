"""When checkpoints are written: every so many steps, seconds, or seconds of events."""

import dataclasses
import re
from typing import TypeAlias

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventInterval:
    """A distance in the time of a topic's messages, whenever they are read.

    Attributes:
      event: Such as `30s`, `10m`, `2h` or `1d`.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    event: str

    def __post_init__(self) -> None:
        seconds("event", self.event)


Every: TypeAlias = int | str | EventInterval
"""Steps; a time such as `30s`; or `{event: 10m}`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSpec:
    """How often the state is written, whole and as what changed since.

    Each interval is a number of steps; a time, such as `30s`, `10m`, `2h` or `1d`; or
    `{event: 10m}` by the time of a topic's messages, whenever they are read. None
    writes none at intervals.

    Attributes:
      full_every: Between whole checkpoints.
      delta_every: Between deltas, which hold the rows that changed since the checkpoint
        before, and all else. With this set, the checkpoint when training ends or is
        interrupted is a delta too. A whole one is written in place of a delta if the
        deltas since the last whole one are more than 200, or have more bytes than it
        (if these are more than 64 MiB).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    full_every: Every | None = None
    delta_every: Every | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(
                    f"`{field.name}` must be at least 1 step. "
                    f"Received: {field.name}={value}."
                )
            if isinstance(value, str):
                seconds(field.name, value)

    @property
    def by_events(self) -> list[str]:
        """The names of intervals in the time of messages."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), EventInterval)
        ]


def seconds(name: str, text: str) -> float:
    """Returns the seconds of a time such as `30s`.

    Raises:
      ValueError: If it is not such a time, or is 0.
    """
    found = _TIME.fullmatch(text)
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not value:
        raise ValueError(
            f"`{name}` must be a number of steps, or a time above 0 with its unit, "
            f"such as `500ms`, `30s`, `10m`, `2h` or `1d`. Received: {name}={text!r}."
        )
    return value
