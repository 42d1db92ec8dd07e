"""A C++ loop written for this case, as the practical limit."""

import ctypes
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
from embedding_sides import case as case_lib

_SOURCE = pathlib.Path(__file__).with_name("loop.cc")
COMPILER = shutil.which("c++") or shutil.which("g++")


class Side(case_lib.Trainer):
    """The compiled loop, and its batches."""

    def versions(self) -> dict:
        version = subprocess.run(
            [COMPILER, "--version"], capture_output=True, text=True, check=True
        )
        return {"compiler": version.stdout.splitlines()[0]}

    def make(self, take: str) -> None:
        case = self._case
        with tempfile.TemporaryDirectory() as folder:
            library = f"{folder}/loop.so"
            flags = ["-std=c++17", "-O3", "-march=native", "-pthread", "-shared"]
            subprocess.run(
                [
                    COMPILER,
                    *flags,
                    "-fPIC",
                    f"-DDIM={case.dim}",
                    _SOURCE,
                    "-o",
                    library,
                ],
                check=True,
            )
            self._loop = ctypes.CDLL(library)
        self._ids = np.ascontiguousarray(
            case_lib.row_numbers(case.draw(), case).reshape(case.batches, -1)
        )
        # It creates rows for new ids, as a store does, with their initial values.
        self._initial = np.load(take)
        self._found = np.empty([self._ids.shape[1], case.dim], np.float32)
        used = len(np.unique(self._ids))
        self._loop.make(
            ctypes.c_int64(used),
            _pointer(self._initial),
            ctypes.c_float(case_lib.LEARNING_RATE),
            ctypes.c_float(case_lib.ACCUMULATOR),
            ctypes.c_int(case.cores),
        )

    def run(self, steps: int) -> None:
        count = ctypes.c_int64(self._ids.shape[1])
        for _ in range(steps):
            ids = self._ids[self._done % len(self._ids)]
            self._loop.step(_pointer(ids), count, _pointer(self._found))
            self._done += 1

    def weights(self, give: str) -> None:
        found = np.empty_like(self._found)
        count = ctypes.c_int64(len(found))
        self._loop.look_up(_pointer(self._ids[0]), count, _pointer(found))
        np.save(give, found)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
