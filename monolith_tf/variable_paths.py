"""Paths of variables, which do not depend on Keras' counters."""

from typing import Any

import numpy as np
import tensorflow as tf


def named(root: tf.Module) -> dict[str, tf.Variable]:
    """Returns attribute path -> variable; paths do not depend on Keras' counters.

    A variable that is sharded over parameter servers is a single entry.
    """
    view = tf.train.TrackableView(root)
    paths: dict[int, str] = {id(root): ""}
    queue = [root]
    found: dict[str, tf.Variable] = {}
    while queue:
        parent = queue.pop(0)
        for name, child in view.children(parent).items():
            if id(child) in paths:
                continue
            path = f"{paths[id(parent)]}/{name}".lstrip("/")
            paths[id(child)] = path
            is_cut = getattr(child, "is_sharded_variable", False)
            if is_cut or isinstance(child, tf.Variable):
                found[path] = child
            else:
                queue.append(child)
    return found


def parts(variable: Any) -> list[tf.Variable]:
    """Returns the variables that hold a variable's values, cut along the first axis.

    A variable of one device is its only part; of one that is mirrored, the first copy.
    """
    if getattr(variable, "is_sharded_variable", False):
        return [part for shard in variable.variables for part in parts(shard)]
    copies = getattr(variable, "values", ())  # A tuple; of a plain variable, nothing.
    return [copies[0]] if isinstance(copies, tuple) and copies else [variable]


def value(variable: Any) -> np.ndarray:
    """Returns a variable's value, from all its parts."""
    values = [part.read_value().numpy() for part in parts(variable)]
    return values[0] if len(values) == 1 else np.concatenate(values)
