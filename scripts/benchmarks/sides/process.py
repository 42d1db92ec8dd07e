"""The sides of a benchmark: processes that take turns.

A side is an object of the class `Side` in a module below `scripts/benchmarks`, in its
own process and possibly its own environment; see `worker.py`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Mapping
from typing import Any

import numpy as np

BENCHMARKS = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent.parent


@dataclasses.dataclass(frozen=True)
class Library:
    """The library that a side runs on.

    Attributes:
      name: Its name in tables.
      install: The packages for pip, installed without dependencies into a separate
        environment on top of this one's packages, so all sides have the same
        TensorFlow; "" for this environment.
      environment: Variables for its process.
      alone: Whether that environment has its own dependencies instead of this one's.
    """

    name: str
    install: str = ""
    environment: tuple[tuple[str, str], ...] = (("TF_USE_LEGACY_KERAS", "1"),)
    alone: bool = False

    def python(self) -> str:
        """Returns the interpreter with the library; installs it if missing."""
        if not self.install:
            return sys.executable
        folder = pathlib.Path(sys.prefix) / "peers" / self.install.replace(" ", ",")
        python = folder / "bin" / "python"
        if not (folder / "installed").exists():
            print(f"Installing {self.install} into {folder} ...", flush=True)
            venv.create(folder, with_pip=True, clear=True)
            command = [python, "-m", "pip", "install", "--quiet"]
            if not self.alone:
                site = next(folder.glob("lib/python*/site-packages"))
                shared = sysconfig.get_paths()["purelib"] + "\n"
                (site / "shared.pth").write_text(shared, encoding="utf-8")
                command.append("--no-deps")
            subprocess.run([*command, *self.install.split()], check=True)
            (folder / "installed").touch()
        return str(python)


class Process(contextlib.AbstractContextManager):
    """A process with one side, which handles one request at a time.

    Args:
      library: The library it runs on.
      module: The module of its class `Side`, below `scripts/benchmarks`.
      *arguments: Strings for its constructor.
      root: The checkout whose code it runs; this one by default.
    """

    def __init__(
        self,
        library: Library,
        module: str,
        *arguments: str,
        root: pathlib.Path | None = None,
    ) -> None:
        environment = os.environ | dict(library.environment)
        folders = [ROOT, BENCHMARKS]
        if root is not None:
            folders = [root, root / "scripts" / "benchmarks"]
        environment |= {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [library.python(), "-m", "sides.worker", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def ask(self, method: str, **arguments: Any) -> Any:
        """Returns the result of `Side.<method>` there, as JSON."""
        request = json.dumps({"method": method, **arguments})
        with contextlib.suppress(BrokenPipeError):  # Reading the answer raises.
            print(request, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            raise RuntimeError(
                f"A side exited with code {code}: {self._log.read()[-3000:]}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __exit__(self, *error: object) -> None:
        self.close()


def in_turn(
    sides: Mapping[str, Process], rounds: int, **request: Any
) -> dict[str, np.ndarray]:
    """Calls `Side.time` of the sides in turn, with one more round to warm up.

    Args:
      sides: The sides, by name.
      rounds: Number of calls of each.
      **request: Arguments of `Side.time`, which returns a row of numbers.

    Returns:
      The answers of each side, `[rounds, numbers]`.
    """
    found: dict[str, list] = {name: [] for name in sides}
    for index in range(rounds + 1):
        # The first one may find the machine in another state.
        for name in sides if index % 2 else reversed(sides):
            found[name].append(sides[name].ask("time", **request))
    return {name: np.array(rows[1:]) for name, rows in found.items()}
