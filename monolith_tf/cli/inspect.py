"""Describes a checkpoint or a SavedModel: tables, ids, bytes, signatures.

PATH is a SavedModel, a folder of its versions, a checkpoint, or a model_dir, whose
newest checkpoint is described.
"""

import argparse
import math
import pathlib
import sys
from typing import Any

from monolith_tf import atomic
from monolith_tf.cli import errors
from monolith_tf.cli import exported_tables
from monolith_tf.cli import saved_model
from monolith_tf.cli import tables
from monolith_tf.embedding.saved import sealed
from monolith_tf.export import metadata
from monolith_tf.export.errors import ExportError
from monolith_tf.features import id_kinds

_CONFIG = "config.yaml"
_MANIFEST = "manifest.json"
_FLOAT_BYTES = 4
_OPTIMIZERS = "optimizers/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the sub-command."""
    parser.add_argument("path", metavar="PATH", help="what to describe")
    parser.add_argument(
        "--write-config",
        type=pathlib.Path,
        metavar="FILE",
        help="write the checkpoint's config with the widths that its search found",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare every file of the checkpoint with its checksum",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the sub-command and returns the exit code."""
    path = pathlib.Path(arguments.path)
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        if arguments.verify:
            _verify(checkpoint, arguments)
        show_checkpoint(checkpoint)
        if arguments.write_config is not None:
            from monolith_tf.cli import quiet

            quiet.import_tensorflow(verbose=arguments.verbose)
            write_config(checkpoint, arguments.write_config)
        return errors.DONE
    if arguments.verify:
        raise errors.UsageError(f"`--verify` needs a checkpoint, and {path} has none.")
    if arguments.write_config is not None:
        raise errors.UsageError(
            f"`--write-config` needs a checkpoint, and {path} has none."
        )
    try:
        path = saved_model.find(path)
    except errors.UsageError:
        if not path.exists():
            raise
        raise errors.UsageError(
            f"{path} is neither a SavedModel, nor a checkpoint, nor a model_dir with "
            "checkpoints."
        ) from None
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    show_saved_model(path)
    return errors.DONE


def find_checkpoint(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of a checkpoint, the newest one of a model_dir, or None."""
    if (path / _MANIFEST).exists():
        return path
    for folder in (path / "checkpoints", path):
        found = sorted(
            (manifest.parent for manifest in folder.glob(f"ckpt-*/{_MANIFEST}")),
            key=lambda checkpoint: int(checkpoint.name.partition("-")[2]),
        )
        if found:
            return found[-1]
    return None


def job_state(model_dir: str) -> dict[str, Any] | None:
    """Returns the job's state in the newest checkpoint; None if none can be read."""
    checkpoint = find_checkpoint(pathlib.Path(model_dir))
    if checkpoint is None:
        return None
    try:
        manifest, _ = sealed.unseal(checkpoint / _MANIFEST)
        return {"slots": manifest["state"]["slots"], **manifest["state"]}
    except (KeyError, OSError, TypeError, ValueError):
        return None  # The job reports what is wrong with it.


def _verify(path: pathlib.Path, arguments: argparse.Namespace) -> None:
    """Raises an error if a file of a checkpoint differs from what was written."""
    from monolith_tf.cli import quiet

    quiet.import_tensorflow(verbose=arguments.verbose)
    from monolith_tf.training import checkpoint as checkpoint_lib

    found = checkpoint_lib.open_checkpoint(path)
    sys.stdout.write(
        f"All {len(found.manifest['files'])} files match their checksums.\n"
        if "checksums" in found.manifest
        else "Only the rows have checksums, and they match.\n"
    )


def show_checkpoint(path: pathlib.Path) -> None:
    """Prints what a checkpoint holds."""
    try:
        manifest, _ = sealed.unseal(path / _MANIFEST)
        step, size = manifest["step"], sum(manifest["files"].values())
        held = _held_tables(manifest["embedding"], manifest["state"])
        variables = [
            [name, str(shape), dtype]
            for name, (shape, dtype) in sorted(manifest["variables"].items())
            if not name.startswith(_OPTIMIZERS)
        ]
        num_hidden = len(manifest["variables"]) - len(variables)
        searched = _searched(manifest["state"].get("search", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path / _MANIFEST} is damaged: {type(error).__name__}: {error}."
        ) from None
    sys.stdout.write(f"Checkpoint {path}\nstep: {step}\nsize: {tables.size(size)}\n\n")
    _show_chain(path, manifest)
    headers = ["table", "slot", "made of", "slices", "optimizer", "ids", "size"]
    tables.show("Embedding tables", headers, held)
    tables.show("Dense variables", ["variable", "shape", "type"], variables)
    sys.stdout.write(f"Variables of dense optimizers, not listed: {num_hidden}.\n")
    if searched:
        sys.stdout.write("\n")
        headers = ["layer", "feature", "columns kept", "of"]
        tables.show("Architecture found", headers, searched)


def _show_chain(path: pathlib.Path, manifest: Any) -> None:
    """Prints the checkpoints that a delta needs, oldest first; nothing if it is whole.

    Args:
      path: The checkpoint.
      manifest: Its manifest.
    """
    links: list[list[object]] = []
    total, parent = 0, manifest.get("parent")
    if parent is None:
        return
    while True:
        size = sum(manifest["files"].values())
        total += size
        kind = "whole" if parent is None else "delta"
        links.append([path.name, kind, manifest["step"], tables.size(size)])
        if parent is None or any(parent["name"] == link[0] for link in links):
            break
        path = path.parent / parent["name"]
        try:
            manifest, _ = sealed.unseal(path / _MANIFEST)
            parent = manifest.get("parent")
        except (OSError, ValueError):
            links.append([path.name, "missing or damaged", None, None])
            break
    headers = ["checkpoint", "kind", "step", "size"]
    tables.show(f"Chain of {tables.size(total)}", headers, links[::-1])


def _held_tables(embedding: Any, state: Any) -> list[list[object]]:
    """Returns a line for each table of an embedding checkpoint's manifest.

    Args:
      embedding: The manifest.
      state: The job's state in the checkpoint.
    """
    id_types = state.get("id_types", {})
    groups = {group["name"]: group for group in embedding["groups"]}
    lines: list[list[object]] = []
    for table in embedding["tables"]:
        group = groups[table["group"]]
        num_ids = table["counters"]["rows"]
        slices = [f"{part['name']}: {part['dim']}" for part in group["slices"]]
        optimizers = [part["optimizer"] for part in group["slices"]]
        width = sum(part["dim"] + part["state_dim"] for part in group["slices"])
        size = tables.size(num_ids * width * _FLOAT_BYTES)
        name, made_of = table["name"], None
        if name in id_types:
            made_of = id_kinds.words(id_types[name], id_kinds.kept(state, name))
        lines.append([name, table["slot"], made_of, slices, optimizers, num_ids, size])
    return lines


def _searched(search: Any) -> list[list[object]]:
    """Returns a line for each feature of each layer that searches for widths."""
    return [
        [layer, feature, size["kept"], size["width"]]
        for layer, features in search.items()
        for feature, size in features.items()
    ]


def write_config(checkpoint: pathlib.Path, path: pathlib.Path) -> None:
    """Writes a checkpoint's config with the widths that its search found."""
    from monolith_tf import config as config_lib
    from monolith_tf.experiment import found_sizes

    manifest, _ = sealed.unseal(checkpoint / _MANIFEST)
    found = manifest["state"].get("search")
    if not found:
        raise errors.UsageError(f"{checkpoint} holds no search for widths.")
    path_of_config = checkpoint / manifest.get("config", _CONFIG)
    config = config_lib.load_config(path_of_config, data="ignored")
    text = config_lib.dump_config(found_sizes.with_found_sizes(config, found))
    atomic.write_text(path, text)
    sys.stdout.write(f"\nWrote {path}\n")


def show_saved_model(path: pathlib.Path) -> None:
    """Prints the signatures, tables and tensors of a SavedModel."""
    import tensorflow as tf
    from google.protobuf import message  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / saved_model.FILE).read_bytes())
    except message.DecodeError:
        raise ValueError(f"{path / saved_model.FILE} is damaged.") from None
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    sys.stdout.write(f"SavedModel {path}\nsize: {tables.size(size)}\n\n")
    for graph in proto.meta_graphs:
        signatures = graph.signature_def
        for name in sorted(signatures):
            if name.startswith("__"):
                continue
            rows: list[list[object]] = []
            for kind in ("inputs", "outputs"):
                tensors: Any = getattr(signatures[name], kind)
                rows.extend(
                    [
                        kind.removesuffix("s"),
                        key,
                        _dtype(tensors[key]),
                        _shape(tensors[key]),
                    ]
                    for key in sorted(tensors)
                )
            method = signatures[name].method_name.rpartition("/")[2]
            tables.show(
                f"Signature {name} ({method})", ["", "name", "type", "shape"], rows
            )
    prefix = path / "variables" / "variables"
    if prefix.with_name("variables.index").exists():
        try:
            described = metadata.read(path)["tables"]
        except ExportError:
            described = None
        reader = tf.train.load_checkpoint(str(prefix))
        if described is None:
            exported_tables.show_indices(reader)
        else:
            exported_tables.show(described, reader)
        _show_stored(reader)


def _show_stored(reader: Any) -> None:
    """Prints the tensors of a SavedModel."""
    dtypes = reader.get_variable_to_dtype_map()
    stored: list[list[object]] = []
    for name, shape in sorted(reader.get_variable_to_shape_map().items()):
        if name.startswith("_CHECKPOINTABLE"):
            continue
        size = math.prod(shape) * dtypes[name].size
        short = name.replace("/.ATTRIBUTES/VARIABLE_VALUE", "")
        short = short.replace("/.ATTRIBUTES/", "/")
        stored.append([short, str(shape), dtypes[name].name, tables.size(size)])
    tables.show("Stored tensors", ["tensor", "shape", "type", "size"], stored)


def _dtype(tensor: Any) -> str:
    import tensorflow as tf

    return tf.as_dtype(tensor.dtype).name


def _shape(tensor: Any) -> str:
    if tensor.tensor_shape.unknown_rank:
        return "any"
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    return str(
        [
            "batch" if i == 0 and s < 0 else "?" if s < 0 else s
            for i, s in enumerate(sizes)
        ]
    ).replace("'", "")
