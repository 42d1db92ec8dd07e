"""Refuses graphs that a stock model server cannot run."""

import pathlib
from collections.abc import Iterator

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
        if node.attr["_XlaMustCompile"].b if "_XlaMustCompile" in node.attr else False:
            raise ExportError(
                f"{where}: node `{node.name}` must be compiled by XLA, which is off in "
                "a model server. Leave `jit_compile=True` out of the serving path."
            )


def _nodes(
    saved_model: saved_model_pb2.SavedModel,
) -> Iterator[tuple[str, node_def_pb2.NodeDef]]:
    for meta_graph in saved_model.meta_graphs:
        for node in meta_graph.graph_def.node:
            yield "graph", node
        for function in meta_graph.graph_def.library.function:
            name = function.signature.name
            if function.attr["_XlaMustCompile"].b:
                raise ExportError(
                    f"Function `{name}` must be compiled by XLA, which is off in a "
                    "model server. Leave `jit_compile=True` out of the serving path."
                )
            for node in function.node_def:
                yield f"function `{name}`", node
