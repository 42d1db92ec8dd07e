"""Throughput of training from files against the same step with batches in memory.

    scripts/bench training [--rounds 7] [--steps 200] [--write] [CONFIG]

The two sides take turns in one process on one model; prints the medians and their
ratio. Also prints the time that importing the package adds to importing TensorFlow, and
the time of `monolith-tf check`. `--write` puts both tables into
`docs/training_benchmark.md`.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import tensorflow as tf
from sides import options
from sides import report

from monolith_tf import config as config_lib
from monolith_tf.experiment import build

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=7)
    parser.add_argument("config", nargs="?", default="configs/census_mmoe.yaml")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    machine = report.machine()
    with tempfile.TemporaryDirectory() as model_dir:
        config = config_lib.load_config(arguments.config, [f"model_dir={model_dir}"])
        files, memory = rates(config, arguments.steps, arguments.rounds)
    rows = [["from files", f"{files:,.0f}"], ["from memory", f"{memory:,.0f}"]]
    rows.append(["files / memory", f"{files / memory:.2f}"])
    rates_table = report.table(["", "examples/s"], rows)
    added, check = import_and_check(arguments.config)
    rows = [["import monolith_tf after tensorflow", f"{added:.2f}"]]
    rows.append(["monolith-tf check", f"{check:.2f}"])
    times_table = report.table(["medians of 5 processes", "seconds"], rows)
    text = (
        f"{machine}.\n\n`{arguments.config}`, batches of {config.data.batch_size:,}; "
        f"medians of {arguments.rounds} rounds of {arguments.steps} steps in turn.\n\n"
        f"{rates_table}\n{times_table}"
    )
    print(text)
    if arguments.write:
        report.write("training_benchmark.md", "training", text)
    report.write_json(arguments.json)


def rates(config, steps: int, rounds: int) -> tuple[float, float]:
    """Returns the examples per second of both sides."""
    job = build.Job(config)
    step = job.train_step(job.settle(None))
    loop = tf.function(step.loop)
    source = job.source("train")

    def from_files() -> tf.data.Dataset:
        return source.dataset(0, 0, num_epochs=None, string_codes=True)

    held = list(from_files().take(min(50, source.batches_per_epoch() - 1)))
    # One dataset of whole batches: each costs an index look-up and no copy.
    in_memory = iter(_cycle(held))
    sides = {"files": iter(from_files()), "memory": in_memory}
    now = tf.constant(0, tf.int64)
    count = tf.constant(steps, tf.int64)
    for iterator in sides.values():
        loop(iterator, count, now)
    found = {name: [] for name in sides}
    for _ in range(rounds):
        for name, iterator in sides.items():
            begin = time.perf_counter()
            examples = int(loop(iterator, count, now).examples)
            found[name].append(examples / (time.perf_counter() - begin))
    return statistics.median(found["files"]), statistics.median(found["memory"])


def _cycle(batches: list) -> tf.data.Dataset:
    one = [tf.data.Dataset.from_tensors(batch) for batch in batches]
    dataset = one[0]
    for other in one[1:]:
        dataset = dataset.concatenate(other)
    return dataset.repeat().prefetch(1)


def import_and_check(config: str) -> tuple[float, float]:
    """Returns the seconds our import adds to TensorFlow's, and those of `check`."""
    program = (
        "import time; import tensorflow, tf_keras; tensorflow.keras.layers; "
        "begin = time.perf_counter(); import monolith_tf; "
        "monolith_tf.layers, monolith_tf.Model, monolith_tf.embedding; "
        "print(time.perf_counter() - begin)"
    )
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    added, checks = [], []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        added.append(float(done.stdout))
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "monolith_tf", "check", config],
            capture_output=True,
            check=True,
            timeout=120,
        )
        checks.append(time.perf_counter() - begin)
    return statistics.median(added), statistics.median(checks)


if __name__ == "__main__":
    main()
