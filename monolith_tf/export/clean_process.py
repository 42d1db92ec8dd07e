"""Queries a SavedModel in a separate, clean process."""

import pathlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from tensorflow.core.protobuf import saved_model_pb2

from monolith_tf.export import versions
from monolith_tf.export.errors import ExportError

_PROGRAM = pathlib.Path(__file__).parent / "session_program.py"
_TIMEOUT_SECS = 600


def ask(
    directory: pathlib.Path,
    requests: Sequence[tuple[str, Mapping[str, np.ndarray]]],
) -> list[dict[str, np.ndarray]]:
    """Returns the answers of a SavedModel to requests, sent in order.

    Args:
      directory: The SavedModel.
      requests: Signature and inputs of each; strings are arrays of objects.

    Raises:
      ExportError: If it cannot be loaded or a request fails.
    """
    with tempfile.TemporaryDirectory(prefix="monolith_tf_") as folder:
        job = pathlib.Path(folder) / "job"
        job.write_bytes(make_job(directory, requests))
        try:
            # Without -P, modules next to the program could be imported.
            done = subprocess.run(
                [sys.executable, "-P", str(_PROGRAM), str(job)],
                cwd=folder,
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
                f" Output of the loader:\n{done.stderr[-2000:]}"
            )
        answers: list[dict[str, np.ndarray]] = pickle.loads(
            job.with_suffix(".answers").read_bytes()
        )
    return answers


def make_job(
    directory: pathlib.Path,
    requests: Sequence[tuple[str, Mapping[str, np.ndarray]]],
) -> bytes:
    """Returns the file of a job, which a program runs without `monolith_tf`.

    Args:
      directory: The SavedModel.
      requests: As for `ask`.
    """
    path = directory / versions.FILE
    saved_model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    signatures = saved_model.meta_graphs[0].signature_def
    resolved = []
    for key, inputs in requests:
        signature = signatures[key]
        feeds = {signature.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: info.name for name, info in signature.outputs.items()}
        resolved.append((feeds, fetches))
    return pickle.dumps({"model": str(directory.resolve()), "requests": resolved})
