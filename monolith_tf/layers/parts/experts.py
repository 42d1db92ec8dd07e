"""Arguments that are set once for all experts or once per expert."""

from collections.abc import Sequence
from typing import Any

from monolith_tf.layers import mlp
from monolith_tf.layers.parts import base


def count(num_experts: int | None, dims: Any, *others: object) -> int:
    """Returns the number of experts, from the first argument that implies it."""
    if num_experts is not None:
        base.require_positive("num_experts", num_experts)
        return num_experts
    if _nested(dims):
        return len(dims)
    for given in others:
        if isinstance(given, (list, tuple)):
            return len(given)
    raise ValueError(
        "`num_experts` cannot be inferred from the other arguments. "
        "Received: num_experts=None. Set it, or pass one list of widths per expert."
    )


def _nested(dims: object) -> bool:
    """Returns whether the widths are set per expert."""
    return isinstance(dims, (list, tuple)) and any(
        isinstance(one, (list, tuple)) for one in dims
    )


def widths(dims: Any, num_experts: int) -> list[list[int]]:
    """Returns one list of widths per expert."""
    listed = list(dims) if _nested(dims) else [dims] * num_experts
    _check_length("expert_output_dims", listed, num_experts)
    checked = [mlp.check_widths("expert_output_dims", one) for one in listed]
    if len({one[-1] for one in checked}) != 1:
        raise ValueError(
            "`expert_output_dims` must end in the same width for every expert. "
            f"Received: expert_output_dims={checked}."
        )
    return checked


def per_expert(name: str, given: object, num_experts: int) -> list[Any]:
    """Returns one entry per expert."""
    if not isinstance(given, (list, tuple)):
        return [given] * num_experts
    _check_length(name, given, num_experts)
    return list(given)


def _check_length(name: str, given: Sequence[Any], num_experts: int) -> None:
    if len(given) != num_experts:
        raise ValueError(
            f"`{name}` must have one entry per expert. "
            f"Received: {len(given)} entries for num_experts={num_experts}."
        )
