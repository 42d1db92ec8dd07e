"""Runs a SavedModel with TensorFlow's C API, without importing Python's TensorFlow.

A model server loads a SavedModel the same way. As a program, it takes the file of a
`monolith_tf.export.clean_process.make_job`.
"""

import ctypes
import importlib.util
import pathlib
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

_TIMEOUT_SECS = 600
_ANSWERS = ".answers"
_STRING = 7
_TYPES = {1: "f4", 2: "f8", 3: "i4", 4: "u1", 6: "i1", 9: "i8", 10: "?", 19: "f2"}
_CODES = {np.dtype(name): code for code, name in _TYPES.items()}
_GIVE_POINTERS = (
    "AllocateTensor",
    "GraphOperationByName",
    "LoadSessionFromSavedModel",
    "NewGraph",
    "NewSessionOptions",
    "NewStatus",
    "StringGetDataPointer",
    "TensorData",
)
_STRING_BYTES = 24  # Size of a TF_TString.


def ask(
    directory: pathlib.Path, requests: Sequence[tuple[str, Mapping[str, np.ndarray]]]
) -> list[Any]:
    """Returns the responses to requests; for a failed one, its error message.

    Args:
      directory: The SavedModel.
      requests: Signature and inputs of each request.
    """
    from monolith_tf.export import clean_process

    with tempfile.TemporaryDirectory(prefix="monolith_tf_") as folder:
        job = pathlib.Path(folder) / "job"
        job.write_bytes(clean_process.make_job(directory, requests))
        # Without -P, modules next to the program could be imported.
        command = [sys.executable, "-P", __file__, str(job)]
        subprocess.run(command, cwd=folder, timeout=_TIMEOUT_SECS, check=True)
        answers: list[Any] = pickle.loads(job.with_suffix(_ANSWERS).read_bytes())
    return answers


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


class _Session:
    """A loaded SavedModel."""

    def __init__(self, path: str) -> None:
        spec = importlib.util.find_spec("tensorflow")  # Does not import it.
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("tensorflow is not installed.")
        folder = pathlib.Path(spec.submodule_search_locations[0])
        self._api = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
        for name in _GIVE_POINTERS:
            getattr(self._api, f"TF_{name}").restype = ctypes.c_void_p
        for name in ("Message", "StringGetSize", "Dim", "TensorByteSize"):
            restype = ctypes.c_char_p if name == "Message" else ctypes.c_size_t
            getattr(self._api, f"TF_{name}").restype = restype
        self._status = ctypes.c_void_p(self._api.TF_NewStatus())
        self._graph = ctypes.c_void_p(self._api.TF_NewGraph())
        self._session = ctypes.c_void_p(
            self._api.TF_LoadSessionFromSavedModel(
                ctypes.c_void_p(self._api.TF_NewSessionOptions()),
                None,
                path.encode(),
                (ctypes.c_char_p * 1)(b"serve"),
                1,
                self._graph,
                None,
                self._status,
            )
        )
        self._check()

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Mapping[str, str]
    ) -> dict[str, np.ndarray]:
        """Fetches tensors."""
        values = (ctypes.c_void_p * len(fetches))()
        self._api.TF_SessionRun(
            self._session,
            None,
            (_Output * len(feeds))(*map(self._output, feeds)),
            (ctypes.c_void_p * len(feeds))(*map(self._tensor, feeds.values())),
            len(feeds),
            (_Output * len(fetches))(*map(self._output, fetches.values())),
            values,
            len(fetches),
            None,
            0,
            None,
            self._status,
        )
        self._check()
        arrays = [self._array(ctypes.c_void_p(value)) for value in values]
        return dict(zip(fetches, arrays, strict=True))

    def _check(self) -> None:
        if self._api.TF_GetCode(self._status):
            raise RuntimeError(self._api.TF_Message(self._status).decode())

    def _output(self, name: str) -> _Output:
        operation, _, index = name.partition(":")
        found = self._api.TF_GraphOperationByName(self._graph, operation.encode())
        if not found:
            raise RuntimeError(f"The graph has no operation {operation}.")
        return _Output(found, int(index))

    def _tensor(self, array: np.ndarray) -> int:
        """Converts an array to a tensor."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        is_string = array.dtype == object
        size = array.size * _STRING_BYTES if is_string else array.nbytes
        made: int = self._api.TF_AllocateTensor(
            _STRING if is_string else _CODES[array.dtype],
            (ctypes.c_int64 * array.ndim)(*array.shape),
            array.ndim,
            ctypes.c_size_t(size),
        )
        data = self._api.TF_TensorData(ctypes.c_void_p(made))
        if not is_string:
            ctypes.memmove(data, array.tobytes(), size)
            return made
        for place, text in enumerate(array.ravel().tolist()):
            string = ctypes.c_void_p(data + place * _STRING_BYTES)
            self._api.TF_StringInit(string)
            self._api.TF_StringCopy(string, text, ctypes.c_size_t(len(text)))
        return made

    def _array(self, tensor: ctypes.c_void_p) -> np.ndarray:
        """Converts a tensor to an array."""
        dims = range(self._api.TF_NumDims(tensor))
        shape = [self._api.TF_Dim(tensor, dim) for dim in dims]
        code = self._api.TF_TensorType(tensor)
        data = self._api.TF_TensorData(tensor)
        if code != _STRING:
            size = self._api.TF_TensorByteSize(tensor)
            flat = np.frombuffer(ctypes.string_at(data, size), _TYPES[code])
            return flat.reshape(shape)
        texts = np.empty(int(np.prod(shape)), object)
        for place in range(texts.size):
            string = ctypes.c_void_p(data + place * _STRING_BYTES)
            texts[place] = ctypes.string_at(
                self._api.TF_StringGetDataPointer(string),
                self._api.TF_StringGetSize(string),
            )
        return texts.reshape(shape)


def main(path: pathlib.Path) -> None:
    """Runs all requests of a job, in order."""
    job = pickle.loads(path.read_bytes())
    session = _Session(job["model"])
    answers: list[Any] = []
    for feeds, fetches in job["requests"]:
        try:
            answers.append(session.run(feeds, fetches))
        except RuntimeError as error:
            answers.append(str(error))
    if any(name.partition(".")[0] == "tensorflow" for name in sys.modules):
        raise RuntimeError("Python's TensorFlow was imported.")
    path.with_suffix(_ANSWERS).write_bytes(pickle.dumps(answers))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
