"""A job on the command line, served and kept up to date while it trains on."""

import re
import signal
import subprocess
import sys

import grpc
import numpy as np
import pytest
import tensorflow as tf
from pyarrow import parquet
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.cli import main
from monolith_tf.cli import serving_extra
from monolith_tf.testing import small_job

# Dense variables do not change: only rows do, and those can be published.
_OVERRIDES = (
    "trainer.deterministic=false",
    "trainer.eval_every_epochs=null",
    "trainer.checkpoint_every_steps=null",
    "trainer.optimizer.learning_rate=0.0",
    "model.params.batch_norm=false",
    "export.spare_rows=200",
    "export.verify_rows=0",
)


def _call(*arguments):
    return main.main(main.parse(["monolith-tf", *map(str, arguments), "--verbose"]))


class _Served:
    """`monolith-tf serve` in a separate process."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "monolith_tf", "serve", folder, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = [self.process.stdout.readline() for _ in range(3)]
        self.said = "".join(lines)
        self.address = re.search(r"gRPC (\S+)", self.said)[1]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.send_signal(signal.SIGTERM)
        self.last, _ = self.process.communicate(timeout=30)

    def predict(self, rows):
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        for name, value in rows.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        with grpc.insecure_channel(self.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            outputs = stub.Predict(request, timeout=30).outputs
        return tf.make_ndarray(outputs["click"])


def _rows(path):
    """The first rows of a file, as a request to a server."""
    table = parquet.read_table(path).slice(0, 50)
    history = tf.ragged.constant(table["history"].to_pylist(), tf.int64)
    return {
        **{name: table[name].to_numpy() for name in ("user", "item", "price")},
        **{
            name: np.array([value.encode() for value in table[name].to_pylist()])
            for name in ("country", "birthplace")
        },
        "history": history.to_tensor().numpy(),
        "history_length": history.row_lengths().numpy(),
    }


def test_a_server_keeps_up_with_a_job(tmp_path, capsys):
    folder = tmp_path / "job"
    config = small_job.write(folder)
    rows = _rows(folder / "eval.parquet")
    assert _call("train", config, *_OVERRIDES, "trainer.max_steps=4") == 0
    output = ["--output", folder / "export"]
    assert _call("export", config, *_OVERRIDES, *output) == 0
    (version,) = (folder / "export").iterdir()
    version.rename(version.with_name("20251130"))
    with _Served(folder / "export") as served:
        assert "Serving version 20251130 of " in served.said
        before = served.predict(rows)
        assert _call("train", config, *_OVERRIDES, "trainer.max_steps=20") == 0
        output = ["--output", folder / "second"]
        assert _call("export", config, *_OVERRIDES, *output) == 0
        capsys.readouterr()
        publish = ["publish", folder / "model", "--to", served.address]
        assert _call(*publish) == 0
        table = capsys.readouterr().out.splitlines()
        assert table[0] == "Published"
        cells = table[3].split()
        assert cells[:4] == [served.address, "20251130", "4", "20"]
        after = served.predict(rows)
        # Nothing is left to send; a missing server is reported.
        away = ["--to", "127.0.0.1:1", "--patience-secs", "0.1"]
        assert _call(*publish, *away) == 1
        out, err = capsys.readouterr()
        assert out.splitlines()[3].split()[2:] == ["20", "20", "0", "0", "0", "0", "0"]
        assert "error: Could not update 127.0.0.1:1." in err
    assert served.last.endswith("Stopped.\n")
    assert served.process.returncode == 0
    (second,) = (folder / "second").iterdir()
    signature = tf.saved_model.load(str(second)).signatures["serving_default"]
    inputs = {name: tf.constant(value) for name, value in rows.items()}
    wanted = signature(**inputs)["click"].numpy()
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, wanted, rtol=1e-5, atol=1e-6)


def test_what_is_no_export_is_reported(tmp_path, capsys):
    assert _call("serve", tmp_path, "--port", 0) == 1
    assert (
        f"error: {tmp_path} has no versions, folders named by a number."
        in capsys.readouterr().err
    )


def test_wrong_use_is_reported(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        _call("publish", tmp_path)
    assert "the following arguments are required: --to" in capsys.readouterr().err
    monkeypatch.setattr(serving_extra.importlib.util, "find_spec", lambda name: None)
    for command in (["serve", tmp_path], ["publish", tmp_path, "--to", "x:1"]):
        assert _call(*command) == 2
        assert capsys.readouterr().err == (
            "error: This needs grpc, tensorflow_serving, werkzeug: "
            "`pip install 'monolith_tf[serving]'`.\n"
        )
