"""One run of the zoo: a config and a seed, trained, scored once, and described."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import yaml

import monolith_tf

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RUNS = ROOT / "runs" / "zoo"
PACKAGES = ("tensorflow", "tf_keras", "numpy")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run to train.

    Attributes:
      config: The config file.
      seed: The seed.
      overrides: `key=value`, as on the command line.
    """

    config: pathlib.Path
    seed: int
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The config's name, `frappe_lr`."""
        return self.config.stem

    @property
    def data(self) -> str:
        """The data set's name, `frappe`."""
        return self.name.partition("_")[0]

    @property
    def digest(self) -> str:
        """A hash of all settings that may change the result."""
        settings = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        settings = {**settings, "model_dir": "", "seed": 0}
        text = json.dumps([settings, self.overrides], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def model_dir(self) -> pathlib.Path:
        """The run's folder; a changed config gets a new one."""
        return RUNS / f"{self.name}-{self.digest}" / f"seed_{self.seed}"

    def command(self, verb: str) -> list[str]:
        """The arguments of `monolith-tf`."""
        try:
            config = self.config.relative_to(ROOT)
        except ValueError:
            config = self.config
        given = [f"seed={self.seed}", *self.overrides]
        return [verb, str(config), *given]


def run(plan: Plan, watch: Callable[[str], None]) -> dict[str, Any]:
    """Trains and scores a run, or resumes it.

    Args:
      plan: The run.
      watch: Called from time to time with the progress.

    Returns:
      The run's record.

    Raises:
      RuntimeError: If a command fails, with the end of its output.
    """
    if not read_metrics(plan.model_dir, "test"):
        plan.model_dir.mkdir(parents=True, exist_ok=True)
        for verb in ("train", "evaluate"):
            _call(plan, verb, watch)
    return record(plan)


def record(plan: Plan) -> dict[str, Any]:
    """Returns the record of a finished run from its files."""
    (test,) = read_metrics(plan.model_dir, "test")[-1:]
    evaluations = read_metrics(plan.model_dir, "eval")
    training = read_metrics(plan.model_dir, "train")
    return {
        "config": plan.name,
        "seed": plan.seed,
        "digest": plan.digest,
        "command": " ".join(["monolith-tf", *plan.command("train")]),
        "test": _numbers(test),
        "best_step": test["step"],
        "steps": evaluations[-1]["step"] if evaluations else test["step"],
        "curve": [{"step": line["step"], **_numbers(line)} for line in evaluations],
        "examples_per_sec": round(
            statistics.median(line["examples_per_sec"] for line in training)
        ),
        "parameters": num_parameters(plan.model_dir),
        "versions": versions(),
        "machine": machine(),
    }


def read_metrics(model_dir: pathlib.Path, phase: str) -> list[dict[str, Any]]:
    """Returns the lines of one phase in a run's `metrics.jsonl`."""
    path = model_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["phase"] == phase]


def num_parameters(model_dir: pathlib.Path) -> int:
    """Counts the weights of a run's newest checkpoint, including rows."""
    manifests = sorted((model_dir / "checkpoints").glob("ckpt-*/manifest.json"))
    manifest = json.loads(manifests[-1].read_text(encoding="utf-8"))
    dense = sum(
        math.prod(shape)
        for path, (shape, _) in manifest["variables"].items()
        if path.startswith("model/") and "moving_" not in path
    )
    rows = sum(
        file["rows"] * sum(part["dim"] for part in group["slices"])
        for group in manifest["embedding"]["groups"]
        for file in group["rows_files"]
    )
    return dense + rows


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages a result depends on."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    ours = {"monolith_tf": monolith_tf.__version__}
    return {"python": platform.python_version(), **ours, **found}


def machine() -> str:
    """Returns the name of the processor and its number of cores."""
    model = platform.processor() or platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        names = [line for line in lines if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {os.cpu_count()} cores"


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in line.items() if k not in ("phase", "step")}


def _call(plan: Plan, verb: str, watch: Callable[[str], None]) -> None:
    log = plan.model_dir / f"{verb}.log"
    command = [sys.executable, "-m", "monolith_tf", *plan.command(verb)]
    command.append(f"model_dir={plan.model_dir}")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            while True:
                watch(_progress(plan, verb))
                try:
                    process.wait(timeout=2)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        end = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        raise RuntimeError(f"`{' '.join(plan.command(verb))}` failed:\n{end}")


def _progress(plan: Plan, verb: str) -> str:
    lines = read_metrics(plan.model_dir, "eval")
    if verb != "train" or not lines:
        return verb
    metric = next(name for name in lines[-1] if name not in ("phase", "step"))
    return f"step {lines[-1]['step']}, {metric} {lines[-1][metric]:.5f}"
