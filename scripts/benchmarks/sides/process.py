"""The sides of a benchmark: processes that take turns.

A side is an object of the class `Side` in a module below `scripts/benchmarks`, in a
process of its own, perhaps in an environment of its own; see `worker.py`.
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
    """What a side runs on.

    Attributes:
      name: What tables call it.
      install: What pip installs for it, without dependencies, into an environment of
        its own on top of this one's packages, so that all sides have one TensorFlow;
        "" for this environment.
      environment: Variables for its process.
      alone: Whether that environment has nothing of this one's, but its dependencies.
    """

    name: str
    install: str = ""
    environment: tuple[tuple[str, str], ...] = (("TF_USE_LEGACY_KERAS", "1"),)
    alone: bool = False

    def python(self) -> str:
        """Returns the interpreter that has the library; installs what is missing."""
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
    """A process with one side, which is asked one thing at a time.

    Args:
      library: What it runs on.
      module: Where its class `Side` is, below `scripts/benchmarks`.
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
        """Returns what `Side.<method>` returns there; JSON carries both."""
        request = json.dumps({"method": method, **arguments})
        with contextlib.suppress(BrokenPipeError):  # Then there is no answer either.
            print(request, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"A side ended with {code}: {self._log.read()[-3000:]}")
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
    """Asks the sides for `Side.time` in turn, once more than counts, to warm up.

    Args:
      sides: The sides, by name.
      rounds: How often each is asked.
      **request: Arguments of `Side.time`, which returns a row of numbers.

    Returns:
      The answers of each side, `[rounds, numbers]`.
    """
    found: dict[str, list] = {name: [] for name in sides}
    for index in range(rounds + 1):
        # Who is first may find the machine in another state.
        for name in sides if index % 2 else reversed(sides):
            found[name].append(sides[name].ask("time", **request))
    return {name: np.array(rows[1:]) for name, rows in found.items()}
