"""The dense weights of an export in one variable, so that they change at once.

A request that reads several variables may find some before an update and some after.
So an export that takes updates has a single one, which each request reads once.
"""

import types
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from monolith_tf import variable_paths
from monolith_tf.export import values_for_handles
from monolith_tf.export.errors import ExportError
from monolith_tf.flat_layout import FlatLayout
from monolith_tf.flat_layout import Place
from monolith_tf.types import Tensor

PREFIX = "model/"
"""How the paths of a model's variables begin in a checkpoint."""


class _Part(NamedTuple):
    """The variable of a handle: a whole dense variable, or some rows of one.

    Attributes:
      path: Path of the whole.
      start: First row of a part; None for a whole.
      variable: The variable.
    """

    path: str
    start: int | None
    variable: tf.Variable


class FlatDense(tf.Module):
    """All dense variables of a model, in one.

    Attributes:
      layout: Where each is.
      values: Their values, `[layout.size]`, float32.

    Args:
      model: The model, with its variables.
    """

    def __init__(self, model: tf.Module) -> None:
        super().__init__(name="flat_dense")
        named = {
            PREFIX + path: variable
            for path, variable in variable_paths.named(model).items()
            if is_flat(variable)
        }
        self.layout = FlatLayout.of(
            {
                path: (list(variable.shape), variable.dtype.name)
                for path, variable in named.items()
            }
        )
        found: dict[int, _Part] = {}
        for path, variable in named.items():
            start, parts = 0, variable_paths.parts(variable)
            for part in parts:
                at = None if len(parts) == 1 else start
                found[id(part.handle)] = _Part(path, at, part)
                start += part.shape[0] if len(parts) > 1 else 0
        # A plain dictionary, and the variables in it, would be saved.
        self._parts: Mapping[int, _Part] = types.MappingProxyType(found)
        values = {path: variable_paths.value(v) for path, v in named.items()}
        self.values = tf.Variable(
            self.layout.filled(values), trainable=False, name="dense"
        )

    def traced(
        self,
        key: str,
        answer: Callable[..., dict[str, Tensor]],
        specs: Mapping[str, tf.TensorSpec],
    ) -> tf.types.experimental.ConcreteFunction:
        """Traces a function that reads `values` once, and no dense variable.

        Args:
          key: The function's name, for errors.
          answer: The function, which may read dense variables in any way.
          specs: Its arguments.

        Raises:
          ExportError: If it does more with a dense variable than to read it.
        """
        names: dict[str, str] = {}

        def noted(**tensors: Tensor) -> dict[str, Tensor]:
            names.update({tensor.name: name for name, tensor in tensors.items()})
            return answer(**tensors)

        first = tf.function(noted).get_concrete_function(**specs)
        captured = [(outer, inner.name) for outer, inner in first.graph.captures]
        mine = {
            inner: self._parts[id(outer)]
            for outer, inner in captured
            if id(outer) in self._parts
        }
        if not mine:
            return first
        graph = first.graph.as_graph_def()
        held = {
            inner.removesuffix(":0"): values_for_handles.Held(
                part.path, tf.as_dtype(self.layout.places[part.path].dtype)
            )
            for inner, part in mine.items()
        }
        try:
            values_for_handles.rewrite(graph, held)
        except ExportError as error:
            raise ExportError(f"Signature `{key}`: {error}") from None
        results = first.graph.structured_outputs

        def rebuilt(**tensors: Tensor) -> dict[str, Tensor]:
            here = tf.compat.v1.get_default_graph()
            paths = {part.path for part in mine.values()}
            whole = self.cut(self.values.read_value(), paths)
            known = {inner: tensors[name] for inner, name in names.items()}
            for outer, inner in captured:
                part = mine.get(inner)
                known[inner] = _rows(whole, part) if part else here.capture(outer)
            found = _imported(graph, known, [r.name for r in results.values()])
            for result in results.values():
                found[result.name].set_shape(result.shape)
            return {n: tf.identity(found[r.name], name=n) for n, r in results.items()}

        second = tf.function(rebuilt, autograph=False).get_concrete_function(**specs)
        for outer, _ in second.graph.captures:
            if id(outer) in self._parts:
                raise ExportError(
                    f"Signature `{key}` still reads the dense variable "
                    f"`{self._parts[id(outer)].path}` by itself. This is an error of "
                    "monolith_tf; set `export.spare_rows` to 0."
                )
        return second

    def cut(self, flat: Tensor, paths: Collection[str]) -> dict[str, Tensor]:
        """Returns the variables in a vector, path -> value, with no copy if aligned."""
        places = {p: q for p, q in self.layout.places.items() if p in paths}
        if not places:
            return {}
        sizes, taken, end = [], {}, 0
        for path, place in places.items():
            if place.offset > end:
                sizes.append(place.offset - end)
            taken[path] = len(sizes)
            sizes.append(place.room)
            end = place.offset + place.room
        if self.layout.size > end:
            sizes.append(self.layout.size - end)
        pieces = tf.split(flat, sizes)
        return {path: _value(pieces[taken[path]], p) for path, p in places.items()}


def is_flat(variable: tf.Variable) -> bool:
    """Returns whether a variable can be in a flat one: all but strings, as of now."""
    kind = variable.dtype
    return bool(kind.is_floating or kind.is_integer or kind.is_bool or kind.is_complex)


def _imported(
    graph: graph_pb2.GraphDef, known: Mapping[str, Tensor], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """Imports a graph, and returns tensors of it by name.

    Args:
      graph: The graph.
      known: Name of a placeholder's tensor -> the tensor to take instead.
      wanted: Names of tensors.
    """
    inner = {name.removesuffix(":0") for name in known}
    nodes = [node for node in graph.node if node.name not in inner]
    used = {name.removesuffix(":0") for node in nodes for name in node.input}
    made = [name for name in dict.fromkeys(wanted) if name not in known]
    tensors = tf.graph_util.import_graph_def(
        graph_pb2.GraphDef(node=nodes, library=graph.library, versions=graph.versions),
        # The importer refuses those that nothing uses.
        input_map={n: t for n, t in known.items() if n.removesuffix(":0") in used},
        return_elements=made,
        name="",
    )
    return {**known, **dict(zip(made, tensors, strict=True))}


def _rows(whole: Mapping[str, Tensor], part: _Part) -> Tensor:
    value = whole[part.path]
    if part.start is None:
        return value
    return value[part.start : part.start + part.variable.shape[0]]


def _value(piece: Tensor, place: Place) -> Tensor:
    """Returns a variable from its piece of the vector, which may have a margin."""
    kind = tf.as_dtype(place.dtype)
    if place.words < place.room:
        piece = tf.slice(piece, [0], [place.words])
    if kind == tf.float32:
        return tf.reshape(piece, place.shape)
    stored = tf.uint8 if kind.is_bool else kind
    if stored.size > tf.float32.size:
        piece = tf.reshape(piece, [-1, stored.size // tf.float32.size])
    values = tf.reshape(tf.bitcast(piece, stored), [-1])[: place.size]
    return tf.reshape(tf.cast(values, kind), place.shape)
