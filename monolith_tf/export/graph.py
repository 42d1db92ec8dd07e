"""Prepares a SavedModel's graph for a stock model server, and checks it."""

import os
import pathlib
import re
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from monolith_tf.export import versions
from monolith_tf.export.errors import ExportError

_MAX_BYTES = 2**31 - 1
_REFUSED = (
    (r"PyFunc|EagerPyFunc|PyFuncStateless", "runs Python"),
    (r"ReadFile|WriteFile|MatchingFiles|.*ReaderV?2?|ReaderRead.*", "reads files"),
    (r".*Dataset(V\d)?|.*Iterator.*|Generator.*", "reads data"),
    (r"Write.*Summary|.*SummaryWriter|.*Summary(V2)?|Print(V2)?", "writes logs"),
    (r"Debug.*", "belongs to a debugger"),
    (r"Xla.*|TPU.*", "needs a compiler"),
    (r"Collective.*|Nccl.*|Send|Recv|_Send|_Recv", "needs other processes"),
)


def finish(directory: pathlib.Path, methods: Mapping[str, str]) -> None:
    """Fixes what a server needs differently from how `tf.saved_model.save` writes it.

    Removes this process' devices from nodes: lookup tables pin theirs to the job that
    created them, and a server has none of that name. Sets the method names of
    signatures, which are "predict" for all.

    Args:
      directory: A SavedModel.
      methods: Signature -> method name.
    """
    path = directory / versions.FILE
    saved_model = _read(path)
    for _, node in _nodes(saved_model):
        node.device = ""
    for meta_graph in saved_model.meta_graphs:
        for key, method in methods.items():
            meta_graph.signature_def[key].method_name = method
    path.write_bytes(saved_model.SerializeToString(deterministic=True))
    # It is a hash of the old graph.
    (directory / "fingerprint.pb").unlink(missing_ok=True)


def check(directory: pathlib.Path) -> None:
    """Checks the graph and its function library.

    Args:
      directory: A SavedModel.

    Raises:
      ExportError: If `saved_model.pb` is too large for a protocol buffer; a node has an
        op that TensorFlow itself does not have, or that needs this process, is pinned
        to a device, or must be compiled by XLA; or a constant is the path of a file on
        this machine.
    """
    path = directory / versions.FILE
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ExportError(
            f"{path} has {size} bytes, more than the 2 GB a server accepts. A "
            "constant of the model is too large; make it a variable."
        )
    saved_model = _read(path)
    functions = {
        function.signature.name
        for meta_graph in saved_model.meta_graphs
        for function in meta_graph.graph_def.library.function
    }
    for where, node in _nodes(saved_model):
        if node.op not in functions:
            _check_op(where, node)
        if "/job:" in node.device or "GPU" in node.device.upper():
            raise ExportError(
                f"{where}: node `{node.name}` is pinned to {node.device}, which no "
                "server has."
            )
        if _must_compile(node.attr):
            raise ExportError(
                f"{where}: node `{node.name}` must be compiled by XLA, which is off in "
                "a model server. Do not use `jit_compile=True` in the serving path."
            )
        _check_constant(where, node)
    for meta_graph in saved_model.meta_graphs:
        for asset in meta_graph.asset_file_def:
            if not (directory / "assets" / asset.filename).is_file():
                raise ExportError(
                    f"The asset `{asset.filename}` is not in {directory / 'assets'}."
                )


def _check_op(where: str, node: node_def_pb2.NodeDef) -> None:
    for pattern, reason in _REFUSED:
        if re.fullmatch(pattern, node.op):
            raise ExportError(
                f"{where}: node `{node.name}` has the op {node.op}, which {reason}; a "
                "model server does not. Use other TensorFlow ops."
            )
    # Ops of a custom library are not among them.
    if not hasattr(tf.raw_ops, node.op):
        raise ExportError(
            f"{where}: node `{node.name}` has the op {node.op}, which TensorFlow and "
            "stock model servers do not have. Use TensorFlow's ops."
        )


def _check_constant(where: str, node: node_def_pb2.NodeDef) -> None:
    """Refuses a constant that is the path of a file on this machine."""
    if (
        node.op != "Const"
        or node.attr["value"].tensor.dtype != tf.string.as_datatype_enum
    ):
        return
    for value in node.attr["value"].tensor.string_val:
        if value.startswith(b"/") and b"\0" not in value and os.path.exists(value):
            raise ExportError(
                f"{where}: node `{node.name}` names the file {value.decode()!r} of "
                "this machine. Make it an asset: `tf.saved_model.Asset`."
            )


def _read(path: pathlib.Path) -> saved_model_pb2.SavedModel:
    return saved_model_pb2.SavedModel.FromString(path.read_bytes())


def _must_compile(attributes: Any) -> bool:
    # Reading a missing key of a protocol buffer's map would add it.
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
                    "model server. Do not use `jit_compile=True` in the serving path."
                )
            for node in function.node_def:
                yield f"function `{name}`", node
