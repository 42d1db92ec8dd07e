"""Rewrites a graph so that it takes values of variables instead of their handles."""

import itertools
from collections.abc import Iterable
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework import function_pb2
from tensorflow.core.framework import graph_pb2
from tensorflow.core.framework import node_def_pb2

from monolith_tf.export.errors import ExportError

_CALLS = {
    "PartitionedCall": (("f",), "Tin", 0),
    "StatefulPartitionedCall": (("f",), "Tin", 0),
    "If": (("then_branch", "else_branch"), "Tin", 1),
    "StatelessIf": (("then_branch", "else_branch"), "Tin", 1),
    "Case": (("branches",), "Tin", 1),
    "StatelessCase": (("branches",), "Tin", 1),
    "While": (("cond", "body"), "T", 0),
    "StatelessWhile": (("cond", "body"), "T", 0),
}
"""Op -> attributes that are functions, the one with the types, inputs before those."""

_numbers = itertools.count()


class Held(NamedTuple):
    """A variable whose handle a tensor was, and whose value it is now.

    Attributes:
      label: Names the variable in errors.
      dtype: Its type.
    """

    label: str
    dtype: tf.DType


def rewrite(graph: graph_pb2.GraphDef, variables: Mapping[str, Held]) -> None:
    """Makes a graph take the values of variables.

    Each operation that reads a variable by its handle takes the value instead, and so
    do functions that get the handle: conditionals, loops and calls, at any depth. These
    get new names, since the model uses the old ones too.

    Args:
      graph: The graph; changed in place.
      variables: Name of a placeholder that is a variable's handle -> the variable. The
        placeholders are removed: who imports the graph maps them to the values.

    Raises:
      ExportError: If an operation does more with a variable than to read it; names
        both.
    """
    rewriter = _Rewriter(graph.library)
    kept = [node for node in graph.node if node.name not in variables]
    for node in kept:
        gone = {f"^{name}" for name in variables} & set(node.input)
        for name in gone:
            node.input.remove(name)
    nodes = rewriter.rewritten(kept, _Scope(dict(variables), in_function=False))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.library.function.extend(rewriter.made)


class _Scope:
    """The tensors of a graph or function that are values now.

    In a graph a tensor is named `node` or `node:1`; in a function `argument`, or
    `node:output:1`.
    """

    def __init__(self, held: dict[str, Held], *, in_function: bool) -> None:
        self._held = held
        self._in_function = in_function

    def output(self, node: str, name: str, index: int) -> str:
        """Returns the name of an output; `name` is that in the op's definition."""
        if self._in_function:
            return f"{node}:{name}:{index}"
        return f"{node}:{index}" if index else node

    def held(self, tensor: str) -> Held | None:
        """Returns the variable whose value a tensor is, if any."""
        return self._held.get(
            tensor if self._in_function else tensor.removesuffix(":0")
        )

    def inputs(self, node: node_def_pb2.NodeDef) -> dict[int, Held]:
        """Returns those inputs of a node that are values, by index."""
        found = enumerate(map(self.held, node.input))
        return {index: held for index, held in found if held is not None}

    def add(self, tensor: str, held: Held) -> None:
        """Notes that a tensor is a value now."""
        self._held[tensor] = held


class _Rewriter:
    """Rewrites graphs and the functions that they call.

    Attributes:
      made: The rewritten functions.
    """

    def __init__(self, library: function_pb2.FunctionDefLibrary) -> None:
        self._functions = {f.signature.name: f for f in library.function}
        self._known: dict[object, tuple[str, dict[int, Held]]] = {}
        self.made: list[function_pb2.FunctionDef] = []

    def rewritten(
        self, nodes: Iterable[node_def_pb2.NodeDef], scope: _Scope
    ) -> list[node_def_pb2.NodeDef]:
        """Returns the nodes of a graph or function, in another order."""
        waiting, done = list(nodes), []
        renamed: dict[str, str] = {}
        while True:  # Each round may find further tensors that are values.
            using = [node for node in waiting if scope.inputs(node)]
            if not using:
                break
            waiting = [node for node in waiting if not scope.inputs(node)]
            for node in using:
                if node.op == "ReadVariableOp":  # The name of its output changes.
                    renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
                done += self._rewritten(node, scope)
        for node in waiting + done:
            for place, name in enumerate(node.input):
                node.input[place] = renamed.get(name, name)
        return waiting + done

    def _rewritten(
        self, node: node_def_pb2.NodeDef, scope: _Scope
    ) -> list[node_def_pb2.NodeDef]:
        used = scope.inputs(node)
        if node.op in _CALLS:
            self._call(node, used, scope)
            return [node]
        held = next(iter(used.values()))
        kind = held.dtype.as_datatype_enum
        if node.op == "Identity":  # Of the handle.
            node.attr["T"].type = kind
            scope.add(scope.output(node.name, "output", 0), held)
            return [node]
        new = node_def_pb2.NodeDef(name=node.name, input=node.input)
        if node.op == "ReadVariableOp":
            new.op = "Identity"
            new.attr["T"].type = kind
            return [new]
        if node.op == "VariableShape":
            new.op = "Shape"
            new.attr["T"].type = kind
            new.attr["out_type"].CopyFrom(node.attr["out_type"])
            return [new]
        if node.op == "ResourceGatherNd":
            new.op = "GatherNd"
            new.attr["Tparams"].type = kind
            new.attr["Tindices"].CopyFrom(node.attr["Tindices"])
            return [new]
        if node.op == "ResourceGather":
            new.op = "GatherV2"
            batch_dims = node.attr["batch_dims"].i
            axis = _constant(f"{node.name}/axis", batch_dims)
            new.input.insert(2, scope.output(axis.name, "output", 0))
            new.attr["Tparams"].type = kind
            new.attr["Tindices"].CopyFrom(node.attr["Tindices"])
            new.attr["Taxis"].type = tf.int32.as_datatype_enum
            new.attr["batch_dims"].i = batch_dims
            return [axis, new]
        raise ExportError(
            f"The dense variable `{held.label}` is an input of the node `{node.name}` "
            f"of op {node.op}, which may change it. In an export with `spare_rows`, "
            "which takes updates of dense weights, a model may only read them. Change "
            "the layer, or set `export.spare_rows` to 0."
        )

    def _call(
        self, node: node_def_pb2.NodeDef, used: Mapping[int, Held], scope: _Scope
    ) -> None:
        """Rewrites a node that calls functions, and the functions."""
        attributes, types, first = _CALLS[node.op]
        given = {index - first: held for index, held in used.items()}
        outputs: dict[int, Held] = {}
        for key in attributes:
            attribute = node.attr[key]
            several = attribute.WhichOneof("value") == "list"
            for function in attribute.list.func if several else [attribute.func]:
                function.name, results = self._function(function.name, given)
                outputs |= results
        input_types = node.attr[types].list.type
        for index, held in given.items():
            input_types[index] = held.dtype.as_datatype_enum
        output_types = node.attr["T" if types == "T" else "Tout"].list.type
        for index, held in outputs.items():
            output_types[index] = held.dtype.as_datatype_enum
            scope.add(scope.output(node.name, "output", index), held)
        # Nobody differentiates an export.
        node.attr.pop("_gradient_op_type", None)
        if "_read_only_resource_inputs" in node.attr:
            read_only = node.attr["_read_only_resource_inputs"].list
            left = [index for index in read_only.i if index not in used]
            del read_only.i[:]
            read_only.i.extend(left)
        if "output_shapes" in node.attr:
            shapes = node.attr["output_shapes"].list.shape
            for index in outputs:
                shapes[index].Clear()
                shapes[index].unknown_rank = True

    def _function(
        self, name: str, given: Mapping[int, Held]
    ) -> tuple[str, dict[int, Held]]:
        """Returns a rewritten function's name, and which of its results are values."""
        key = name, tuple(sorted((index, held.label) for index, held in given.items()))
        if key in self._known:
            return self._known[key]
        function = function_pb2.FunctionDef()
        function.CopyFrom(self._functions[name])
        function.signature.name = f"{name}_of_values_{next(_numbers)}"
        scope = _Scope({}, in_function=True)
        for index, held in given.items():
            argument = function.signature.input_arg[index]
            argument.type = held.dtype.as_datatype_enum
            argument.ClearField("handle_data")
            scope.add(argument.name, held)
            if index in function.arg_attr:
                attributes = function.arg_attr[index].attr
                for attribute in ("_output_shapes", "_handle_dtypes", "_handle_shapes"):
                    attributes.pop(attribute, None)
        nodes = self.rewritten(function.node_def, scope)
        identities = {node.name for node in nodes if node.op == "Identity"}
        del function.node_def[:]
        function.node_def.extend(nodes)
        results = {}
        for index, result in enumerate(function.signature.output_arg):
            source = function.ret[result.name]
            node, _, output = source.partition(":")
            if node in identities and output == "value:0":
                function.ret[result.name] = f"{node}:output:0"
            found = scope.held(source)
            if found is not None:
                result.type = found.dtype.as_datatype_enum
                result.ClearField("handle_data")
                results[index] = found
        self.made.append(function)
        self._known[key] = function.signature.name, results
        return self._known[key]


def _constant(name: str, value: int) -> node_def_pb2.NodeDef:
    node = node_def_pb2.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.int32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    return node
