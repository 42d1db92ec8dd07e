"""Where checkpoints of version 0.1.0 hold the variables of towers.

Models made their towers in three ways, which are all `layers.MLP` now:

    model/_deep/stack/0/kernel       was model/_deep/0/kernel             in DCN
    model/_towers/1/stack/2/kernel   was model/_towers/1/1/kernel         in MMoE
    model/_tower/stack/0/kernel      was model/_tower/_layers/0/kernel    in others

DCN had biases before batch normalization, which cancels them: the mean of `x @ w` is
that of `x @ w + b`, minus `b`. Their optimizer state is not needed.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

_IN_TOWER = re.compile(r"(model/(?:_deep|_towers?(?:/\d+)?))/stack/(\d+)/(\w+)")
_SLOT = re.compile(r"(optimizers/\d+/_variables)/(\d+)")


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a checkpoint holds variables.

    Attributes:
      paths: Path of each variable -> its path in the checkpoint.
      biases: Path of a moving mean -> path of the bias to subtract from it.
      unneeded: Paths in the checkpoint of these biases and their optimizer state.
    """

    paths: Mapping[str, str]
    biases: Mapping[str, str]
    unneeded: Collection[str]


def find(variables: Mapping[str, tf.Variable], saved: Collection[str]) -> Found:
    """Finds variables in a checkpoint of this version or of 0.1.0.

    Args:
      variables: Path -> variable.
      saved: The paths in the checkpoint.
    """
    paths = {path: _former_path(path, saved) for path in variables}
    biases, kernels = {}, set()
    for path, former in paths.items():
        match = _IN_TOWER.fullmatch(path)
        if path == former or match is None or match[3] != "kernel":
            continue
        bias = former.removesuffix("kernel") + "bias"
        mean = f"{match[1]}/stack/{int(match[2]) + 1}/moving_mean"
        if bias in saved and mean in variables:
            biases[mean] = bias
            kernels.add(_name(variables[path]))
    slots, unneeded = _former_slots(variables, kernels) if kernels else ({}, set())
    return Found(paths | slots, biases, {*biases.values(), *unneeded})


def _former_path(path: str, saved: Collection[str]) -> str:
    """Returns where a checkpoint holds a variable; `path` if it does not hold it."""
    match = _IN_TOWER.fullmatch(path)
    if path in saved or match is None:
        return path
    root, index, name = match[1], int(match[2]), match[3]
    # Dense layers of MMoE included their activations.
    in_list = index if root.endswith("_deep") else index // 2
    formers = (f"{root}/_layers/{index}/{name}", f"{root}/{in_list}/{name}")
    return next((former for former in formers if former in saved), path)


def _former_slots(
    variables: Mapping[str, tf.Variable], kernels: Collection[str]
) -> tuple[dict[str, str], set[str]]:
    """Returns the former paths of optimizer state, numbered in the variables' order.

    Args:
      variables: Path -> variable.
      kernels: Names of the kernels that a bias followed.

    Returns:
      Path -> former path, and the former paths of the biases' state. Kernel and bias
      had the same number of slots, one after the other.
    """
    slots = [(m[1], int(m[2]), path) for path in variables if (m := _SLOT.match(path))]
    paths: dict[str, str] = {}
    unneeded: set[str] = set()
    for optimizer, ours in itertools.groupby(sorted(slots), key=lambda slot: slot[0]):
        former = (f"{optimizer}/{index}" for index in itertools.count(1))
        members = [path for _, _, path in ours]
        # The name of a slot is its kind, `/`, and the name of its variable.
        for owner, run in itertools.groupby(
            members, key=lambda path: _name(variables[path]).partition("/")[2]
        ):
            of_owner = dict(zip(run, former, strict=False))
            paths |= of_owner
            if owner in kernels:
                unneeded.update(itertools.islice(former, len(of_owner)))
    return paths, unneeded


def _name(variable: Any) -> str:
    """Returns the name of a variable, or of one that is sharded, without its part."""
    part = getattr(variable, "variables", [variable])[0]
    return re.sub(r"(/part_\d+)?:\d+$", "", part.name)
