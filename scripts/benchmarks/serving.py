"""Exported DCN and DIN models against plain SavedModels of the same networks.

    scripts/bench serving [--seconds 4] [--only DCN] [--write]
    scripts/bench serving --table export [--write]

Each model is trained for some steps and exported; the plain SavedModel has the same
values in `tf_keras.layers.Embedding` layers, and takes row numbers instead of raw ids.
First both must return the same answers. Then they take turns, request by request, at
batch 1, 100 and 1000: through the session loader, and by gRPC from two `monolith-tf
serve` processes on this machine, with one client that waits for each answer. The target
is at most 1.2 times the plain model's median.

`--table export` measures instead the memory that exports of tables of 1, 5 and 20
million rows take, with 7 GB of disk. `--write` puts a table into
`docs/serving_benchmark.md`.
"""

import argparse
import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import grpc
import numpy as np
import tensorflow as tf
from serving_sides import case
from serving_sides import exporting
from serving_sides import plain
from sides import report
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf import config as config_lib
from monolith_tf.experiment import estimator
from monolith_tf.training import checkpoint_dir

BATCHES = (1, 100, 1000)
TARGET = 1.2
_KEY = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
_HEAD = (
    *("model, path", "batch", "p50 ms", "p99 ms", "requests/s"),
    *("plain p50", "plain p99", "plain requests/s", "p50 / plain"),
)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", choices=case.MODELS)
    parser.add_argument("--table", choices=("table", "export"), default="table")
    parser.add_argument("--write", action="store_true")
    report.add_json(parser)
    arguments = parser.parse_args()
    measure = _exports if arguments.table == "export" else _answers
    head, rows = measure(arguments)
    text = f"{report.machine('grpcio')}\n\n{report.table(head, rows)}"
    page = "serving_benchmark.md" if arguments.write else None
    report.give(page, arguments.table, text)
    report.write_json(arguments.json)


def _exports(_: argparse.Namespace) -> tuple[Sequence[str], list[list[str]]]:
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for row in exporting.rows(pathlib.Path(folder) / "job"):
            print(*row, file=sys.stderr)
            rows.append(row)
    return exporting.HEAD, rows


def _answers(arguments: argparse.Namespace) -> tuple[Sequence[str], list[list[str]]]:
    rows = []
    for name in [arguments.only] if arguments.only else case.MODELS:
        with tempfile.TemporaryDirectory() as folder:
            sides = _export(pathlib.Path(folder) / "job", name)
            for path, opened in (("session", _sessions), ("gRPC", _servers)):
                with opened(sides) as asked:
                    rows += _measure(f"{name}, {path}", asked, arguments.seconds)
    return _HEAD, rows


def _export(folder: pathlib.Path, name: str) -> dict[str, pathlib.Path]:
    """Returns the folders of versions of both sides."""
    config = config_lib.load_config(str(case.write(folder, name)))
    job = estimator.Estimator(config)
    job.train()
    job.export_saved_model(folder / "ours")
    checkpoint = checkpoint_dir.CheckpointDir(folder / "model/checkpoints").latest()
    plain.save(config, case.MODELS[name][1], checkpoint, folder / "plain")
    return {"ours": folder / "ours", "plain": folder / "plain"}


def _measure(
    what: str, sides: dict[str, Callable], seconds: float
) -> Iterator[list[str]]:
    for batch in BATCHES:
        inputs = case.requests(np.random.default_rng(batch), batch)
        asked = {name: side(inputs) for name, side in sides.items()}
        ours, other = (ask() for ask in asked.values())
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
        times = {name: [] for name in asked}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name, ask in asked.items():
                begin = time.perf_counter()
                ask()
                times[name].append(time.perf_counter() - begin)
        figures = {name: _figures(np.array(found)) for name, found in times.items()}
        ratio = figures["ours"][0] / figures["plain"][0]
        cells = [f"{value:.2f}" for found in figures.values() for value in found]
        yield [what, str(batch), *cells, f"{ratio:.2f}"]
        print(what, batch, cells, f"{ratio:.2f}", file=sys.stderr)


def _figures(times: np.ndarray) -> tuple[float, float, float]:
    """Median and 99th percentile in milliseconds, and requests per second."""
    times = times[len(times) // 10 :]  # The first ones warm up.
    return (*np.percentile(1000 * times, [50, 99]), 1 / times.mean())


@contextlib.contextmanager
def _sessions(
    sides: dict[str, pathlib.Path],
) -> Iterator[dict[str, Callable]]:
    """Each side in its own session, called with minimal Python overhead."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(_session(next(directory.iterdir())))
            for name, directory in sides.items()
        }


@contextlib.contextmanager
def _session(path: pathlib.Path) -> Iterator[Callable]:
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = meta_graph.signature_def[_KEY]

        def prepare(inputs: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
            options = config_pb2.CallableOptions(
                feed=[signature.inputs[name].name for name in inputs],
                fetch=[info.name for info in signature.outputs.values()],
            )
            function = session._make_callable_from_options(options)
            return lambda: function(*inputs.values())[0]

        yield prepare


@contextlib.contextmanager
def _servers(sides: dict[str, pathlib.Path]) -> Iterator[dict[str, Callable]]:
    """Each side in its own server."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(_server(directory))
            for name, directory in sides.items()
        }


@contextlib.contextmanager
def _server(directory: pathlib.Path) -> Iterator[Callable]:
    command = [sys.executable, "-m", "monolith_tf", "serve", directory, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = None
            while not found:
                found = re.search(r"gRPC (\S+)", process.stdout.readline())
            with grpc.insecure_channel(found[1]) as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

                def prepare(inputs: dict[str, np.ndarray]) -> Callable[[], np.ndarray]:
                    request = predict_pb2.PredictRequest()
                    request.model_spec.name = "default"
                    for name, value in inputs.items():
                        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))

                    def ask() -> np.ndarray:
                        outputs = stub.Predict(request, timeout=60).outputs
                        return tf.make_ndarray(next(iter(outputs.values())))

                    return ask

                yield prepare
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
