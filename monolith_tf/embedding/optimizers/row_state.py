"""The optimizer state beside a row's weights, without TensorFlow.

| optimizer | parts of the state |
| --- | --- |
| sgd without momentum, moving_average | none |
| adagrad, rmsprop, rmsprop_v2 | n `[dim]` |
| rowwise_adagrad, group_adagrad | n `[1]` |
| adadelta | a `[dim]`, u `[dim]` |
| adam | m `[dim]`, v `[dim]`, beta_1^t `[1]`, beta_2^t `[1]` |
| amsgrad | m `[dim]`, v `[dim]`, x `[dim]`, beta_1^t `[1]`, beta_2^t `[1]` |
| momentum, sgd with momentum | n `[dim]` |
| ftrl, group_ftrl | z `[dim]`, n `[dim]` |
| lion | m `[dim]` |
| batch_softmax | last_step `[1]`, a float32, so exact up to step 2^24 |

"monolith_adam" has the state of "adam", and so on.
"""

from typing import Any
from typing import NamedTuple


class Part(NamedTuple):
    """A part of the state: one value per weight, or one per row.

    A new row holds `initial`, or the spec's `initial_field` where it has that field.
    """

    name: str
    is_per_row: bool = False
    initial: float = 0.0
    initial_field: str = ""


_N = Part("n", initial_field="initial_accumulator_value")
_N_PER_ROW = _N._replace(is_per_row=True)
_POWERS = (
    Part("beta_1_power", is_per_row=True, initial=1.0),
    Part("beta_2_power", is_per_row=True, initial=1.0),
)

STATE: dict[str, tuple[Part, ...]] = {
    "sgd": (),
    "adagrad": (_N,),
    "rowwise_adagrad": (_N_PER_ROW,),
    "group_adagrad": (_N_PER_ROW,),
    "adadelta": (Part("a"), Part("u")),
    "adam": (Part("m"), Part("v"), *_POWERS),
    "amsgrad": (Part("m"), Part("v"), Part("x"), *_POWERS),
    "momentum": (_N,),
    "momentum_nesterov": (_N,),
    "moving_average": (),
    "rmsprop": (_N,),
    "rmsprop_v2": (_N,),
    "ftrl": (Part("z"), _N),
    "group_ftrl": (Part("z"), _N),
    "lion": (Part("m"),),
    "monolith_adagrad": (_N,),
    "monolith_adadelta": (Part("a"), Part("u")),
    "monolith_adam": (Part("m"), Part("v"), *_POWERS),
    "monolith_rmsprop": (_N,),
    "monolith_ftrl": (Part("z"), _N),
    "batch_softmax": (Part("last_step", is_per_row=True),),
}
"""Update rule -> the parts of its state."""


def part_dims(kind: str, dim: object) -> list[Any]:
    """Returns widths of a row's parts: `dim` weights, then the parts of the state."""
    return [dim, *(1 if part.is_per_row else dim for part in STATE[kind])]


def state_dim(kind: str, dim: int) -> int:
    """Returns the number of floats of state in a row of `dim` weights."""
    return sum(part_dims(kind, dim)[1:])
