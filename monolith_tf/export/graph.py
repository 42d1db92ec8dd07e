"""Brings a SavedModel's graph into a form that a stock model server can run."""

import pathlib
from collections.abc import Iterator
from typing import Any

from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from monolith_tf.export.errors import ExportError

_MAX_BYTES = 2**31 - 1
_REFUSED = {
    "PyFunc": "runs Python",
    "PyFuncStateless": "runs Python",
    "EagerPyFunc": "runs Python",
    "ReadFile": "reads files",
    "WriteFile": "writes files",
}


def strip_devices(directory: pathlib.Path) -> None:
    """Takes the devices of this process off all nodes of a SavedModel.

    Lookup tables pin their nodes to the job they were made in; a server has none of
    that name.
    """
    path = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for _, node in _nodes(saved_model):
        node.device = ""
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    # It is a hash of the graph as it was.
    (directory / "fingerprint.pb").unlink(missing_ok=True)


def check(directory: pathlib.Path) -> None:
    """Walks the graph and its function library.

    Args:
      directory: A SavedModel.

    Raises:
      ExportError: If `saved_model.pb` is too large for a protocol buffer, or a node is
        pinned to a job, must be compiled by XLA, or needs this process.
    """
    path = directory / "saved_model.pb"
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ExportError(
            f"{path} has {size} bytes, more than the 2 GB a server reads. A constant "
            "of the model is too large; make it a variable."
        )
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for where, node in _nodes(saved_model):
        if node.op in _REFUSED:
            raise ExportError(
                f"{where}: node `{node.name}` has the op {node.op}, which "
                f"{_REFUSED[node.op]}; a model server does not. Use TensorFlow ops."
            )
        if "/job:" in node.device:
            raise ExportError(
                f"{where}: node `{node.name}` is pinned to {node.device}, which no "
                "server has."
            )
        if _must_compile(node.attr):
            raise ExportError(
                f"{where}: node `{node.name}` must be compiled by XLA, which is off in "
                "a model server. Leave `jit_compile=True` out of the serving path."
            )


def _must_compile(attributes: Any) -> bool:
    # Asking a protocol buffer's map for a key that it lacks would add the key.
    return "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b


def _nodes(
    saved_model: saved_model_pb2.SavedModel,
) -> Iterator[tuple[str, node_def_pb2.NodeDef]]:
    for meta_graph in saved_model.meta_graphs:
        for node in meta_graph.graph_def.node:
            yield "graph", node
        for function in meta_graph.graph_def.library.function:
            name = function.signature.name
            if _must_compile(function.attr):
                raise ExportError(
                    f"Function `{name}` must be compiled by XLA, which is off in a "
                    "model server. Leave `jit_compile=True` out of the serving path."
                )
            for node in function.node_def:
                yield f"function `{name}`", node
