"""Loads an export in a clean process and compares its answers with the model's."""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.export import examples as examples_lib
from monolith_tf.export.errors import ExportError
from monolith_tf.features.columns import ColumnType

RTOL = 1e-5
ATOL = 1e-6
_TIMEOUT_SECS = 600

# Runs where monolith_tf cannot be imported: the session loader is the path that a
# model server takes. It knows nothing but the SavedModel and the inputs.
_PROGRAM = r"""
import pathlib, sys
sys.modules["monolith_tf"] = None
import numpy as np
import tensorflow.compat.v1 as tf
tf.disable_eager_execution()
model, work = sys.argv[1], pathlib.Path(sys.argv[2])
named = dict(np.load(work / "inputs.npz"))
examples = list(tf.io.tf_record_iterator(str(work / "examples.tfrecord")))
with tf.Session(graph=tf.Graph()) as session:
    meta_graph = tf.saved_model.load(session, ["serve"], model)
    for key, signature in meta_graph.signature_def.items():
        if not signature.outputs or key.startswith("__"):
            continue
        takes_examples = list(signature.inputs) == ["examples"]
        fed = {"examples": examples} if takes_examples else named
        answers = session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {info.name: fed[name] for name, info in signature.inputs.items()},
        )
        np.savez(work / (key + ".outputs.npz"), **answers)
"""


def verify(
    directory: pathlib.Path,
    columns: Mapping[str, ColumnType],
    sample: Mapping[str, Any],
    expected: Mapping[str, np.ndarray],
) -> float:
    """Compares every signature of a SavedModel with the model it was made from.

    Args:
      directory: The SavedModel.
      columns: The raw features.
      sample: Their values on real rows.
      expected: The model's answers to them.

    Returns:
      The largest absolute difference found.

    Raises:
      ExportError: If the export does not load, or an answer is further away than
        1e-5 of its value plus 1e-6.
    """
    with tempfile.TemporaryDirectory(prefix="monolith_tf_verify_") as name:
        work = pathlib.Path(name)
        named: Any = _named(columns, sample)
        np.savez(work / "inputs.npz", **named)
        with tf.io.TFRecordWriter(str(work / "examples.tfrecord")) as writer:
            for example in examples_lib.serialize(columns, sample):
                writer.write(example)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM, str(directory.resolve()), name],
                cwd=name,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"{directory} did not answer within {_TIMEOUT_SECS} s in a clean "
                "process; nothing was published."
            ) from None
        if done.returncode:
            raise ExportError(
                f"{directory} does not load in a clean process; nothing was published."
                f" The loader said:\n{done.stderr[-2000:]}"
            )
        largest = 0.0
        for path in sorted(work.glob("*.outputs.npz")):
            signature = path.name.removesuffix(".outputs.npz")
            for head, value in np.load(path).items():
                largest = max(largest, _compare(signature, head, value, expected[head]))
    return largest


def _named(
    columns: Mapping[str, ColumnType], sample: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    named = {}
    for name, kind in columns.items():
        value = sample[name]
        if kind.is_list:
            named[name + "_length"] = value.row_lengths().numpy()
            value = value.to_tensor()
        array = tf.convert_to_tensor(value).numpy()
        named[name] = array.astype(np.bytes_) if kind.dtype == "string" else array
    return named


def _compare(
    signature: str, head: str, value: np.ndarray, expected: np.ndarray
) -> float:
    difference = np.abs(value - expected)
    excess = difference - (RTOL * np.abs(expected) + ATOL)
    if value.shape != expected.shape or (excess.size and not excess.max() <= 0):
        row = int(np.argmax(excess.reshape(len(excess), -1).max(axis=-1)))
        raise ExportError(
            f"Signature `{signature}` answers otherwise than the model; nothing was "
            f"published. Output `{head}`, row {row} of the sample: {value[row]} "
            f"against {expected[row]}."
        )
    return float(difference.max()) if difference.size else 0.0
