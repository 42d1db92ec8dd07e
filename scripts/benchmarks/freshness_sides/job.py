"""The job of the benchmark: its config, and the processes that train and serve."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

from freshness_sides import events

_CONFIG = """\
model_dir: {folder}/model
seed: 1
data: {{train: {folder}/past.parquet, batch_size: {batch}}}
features:
{features}
labels: [click]
default_table:
  dim: {dim}
  optimizer: {{name: adagrad, learning_rate: 0.05, initial_accumulator_value: 1.0e-6}}
  expire_after_steps: {expire}
model:
  blocks:
    - {{name: cross, layer: DCN, inputs: [embeddings], args: {{layer_num: 3}}}}
    - name: deep
      layer: MLP
      inputs: [embeddings]
      args: {{output_dims: [256, 128, 1], activations: [relu, relu, null]}}
  heads:
    - {{label: click, inputs: [cross, deep]}}
trainer: {{optimizer: {{name: adagrad, learning_rate: 0.01}}, log_every_steps: 20}}
export: {{spare_rows: 1_000_000}}
"""


def write(case: events.Case, folder: pathlib.Path) -> pathlib.Path:
    """Writes the config and the events before the stream; returns the config's path."""
    events.write_past(case, folder / "past.parquet")
    features = "\n".join(f"  - {{name: {name}, kind: id}}" for name in case.names)
    path = folder / "config.yaml"
    text = _CONFIG.format(
        folder=folder,
        features=features,
        batch=case.batch,
        dim=case.dim,
        expire=case.expire_after_steps or "null",
    )
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments: str | pathlib.Path) -> None:
    """Runs a command of `monolith-tf` to its end."""
    subprocess.run([*_PROGRAM, *map(str, arguments)], check=True)


@contextlib.contextmanager
def server(folder: pathlib.Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """Serves the exports of a folder; yields the process and its gRPC address."""
    command = [*_PROGRAM, "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = None
            while not found:
                line = process.stdout.readline() if process.stdout else ""
                if not line:
                    raise RuntimeError("The server ended.")
                found = re.search(r"gRPC (\S+)", line)
            yield process, found[1]
        finally:
            process.terminate()


@contextlib.contextmanager
def trainer(
    config: pathlib.Path, brokers: str, topic: str, server: str
) -> Iterator[subprocess.Popen]:
    """Trains on a topic and publishes to a server, until the context ends."""
    stream = {"brokers": brokers, "topic": topic, "max_wait": 0.1}
    command = [
        *(*_PROGRAM, "train", str(config), "data.train=[]"),
        f"data.stream={json.dumps(stream)}",
        f"publish={json.dumps({'to': [server]})}",
    ]
    log = (config.parent / "trainer.log").open("w")
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(120)


@contextlib.contextmanager
def producer(
    case: events.Case, brokers: str, topic: str, rate: float, most: int = 1 << 62
) -> Iterator[None]:
    """Sends events at a rate until the context ends, at most so many."""
    command = [sys.executable, "-m", "freshness_sides.producer", brokers, topic]
    command += [str(rate), str(most), json.dumps(dataclasses.asdict(case))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            if process.stdout is None or "ready" not in process.stdout.readline():
                raise RuntimeError("The producer ended.")
            yield
        finally:
            output, _ = process.communicate(timeout=60)
            print(f"Sent {output.strip()} s", file=sys.stderr, flush=True)


_PROGRAM = (sys.executable, "-m", "monolith_tf")
